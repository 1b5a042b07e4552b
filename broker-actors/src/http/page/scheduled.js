// What waits for its time, and the schedules of recurring messages.

import { Table, ask, duration, el, filterBox, head, moment, number, preview } from './parts.js';

const SCHEDULED_SHOWN = 200;

/** How long until then. */
const until = (ms) => el('time', { datetime: new Date(ms).toISOString(), title: moment(ms) },
  ms > Date.now() ? `in ${duration(ms - Date.now())}` : `since ${duration(Date.now() - ms)}`);

export function scheduled(main) {
  let only = '';
  let rows = [];
  const note = el('span', { class: 'note' });
  const due = el('p', { class: 'note', id: 'due' });
  const table = new Table({
    name: 'Scheduled',
    empty: 'Nothing waits for its time. A message does that is sent so: grus produce reminders --delay 10s',
    key: (row) => row.handle,
    columns: [
      { title: 'Due', kind: '', cell: (row) => moment(row.due) },
      { title: '', kind: 'minor', cell: (row) => until(row.due) },
      { title: 'Topic', kind: 'wrap', cell: (row) => row.topic },
      { title: 'Queue', kind: 'number', cell: (row) => row.queueId },
      { title: 'Handle', kind: 'mono', cell: (row) => row.handle },
      { title: 'Keys', kind: 'minor wrap', cell: (row) => (row.message?.keys ?? []).map((key) => key.value).join(', ') },
      { title: 'Body', kind: 'wrap', cell: (row) => (row.message ? preview(row.message.body) : 'not readable now') },
    ],
  });
  const show = () => table.show(rows.filter((row) => row.topic.toLowerCase().includes(only)));
  const filter = filterBox('Filter by topic', (text) => { only = text; show(); });
  const recurring = schedules();
  main.replaceChildren(head('Scheduled', note, filter), due, table.node, ...recurring.nodes);
  return async () => {
    const page = await ask('/scheduled', { max: SCHEDULED_SHOWN, body: 200 });
    rows = page.messages;
    const rest = page.next ? `, the first ${number(rows.length)} of them here` : '';
    note.textContent = `${number(page.pending)} wait for their time${rest}`;
    due.textContent = page.due.filter((bucket) => bucket.messages)
      .map((bucket) => `${bucket.withinMs === null ? 'later' : bucket.withinMs ? `within ${duration(bucket.withinMs)}` : 'overdue'}: ${number(bucket.messages)}`).join(', ');
    show();
    await recurring.refresh();
  };
}

const SCHEDULES_SHOWN = 500;

/** How a schedule runs, as a person says it. */
const cadence = (row) => (row.cron === null ? `every ${duration(row.everyMs)}` : `${row.cron} (${row.zone})`);

/** The schedules, below what is scheduled. */
function schedules() {
  const note = el('span', { class: 'note' });
  const table = new Table({
    name: 'Recurring',
    empty: 'No schedule. One is made by: grus schedule create reminders tick --every 1h --body tick',
    key: (row) => `${row.topicId}/${row.queueId}/${row.name}`,
    columns: [
      { title: 'Schedule', kind: 'wrap', value: (row) => row.name, cell: (row) => row.name },
      { title: 'Topic', kind: 'wrap', value: (row) => row.topic, cell: (row) => row.topic },
      { title: 'Queue', kind: 'number', value: (row) => row.queueId, cell: (row) => row.queueId },
      { title: 'Runs', kind: 'mono wrap', value: cadence, cell: cadence },
      { title: 'Next', kind: '', value: (row) => row.next[0] ?? Infinity, cell: (row) => (row.paused ? el('span', { class: 'pill' }, 'paused') : row.next.length ? moment(row.next[0]) : 'never again') },
      { title: '', kind: 'minor', cell: (row) => (row.next.length ? until(row.next[0]) : '') },
      { title: 'Sent', kind: 'number', value: (row) => row.runs, cell: (row) => number(row.runs) },
      { title: 'Made up for', kind: 'number minor', value: (row) => row.madeUpMax, cell: (row) => `at most ${number(row.madeUpMax)}` },
    ],
  });
  const refresh = async () => {
    const page = await ask('/schedules', { max: SCHEDULES_SHOWN, runs: 1 });
    note.textContent = page.next ? `the first ${number(page.schedules.length)}` : number(page.schedules.length);
    table.show(page.schedules);
  };
  return { nodes: [el('div', { class: 'head' }, el('h2', {}, 'Recurring'), note), table.node], refresh };
}
