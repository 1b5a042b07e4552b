// Consumer groups: who is in them, how far they have come, and what they gave up.

import { Table, ago, ask, change, duration, el, filterBox, head, moment, number, preview } from './parts.js';

const GROUPS_SHOWN = 500;
const PARTS_SHOWN = 500;
const LETTERS_SHOWN = 100;
/** How long a button waits for the second press. */
const SURE_MS = 5_000;

const path = (group, ...rest) => ['/groups', encodeURIComponent(group), ...rest].join('/');
const groupLink = (group) => el('a', { href: `#/groups?${new URLSearchParams({ group })}` }, group);
const known = (value, show = number) => (value == null ? el('span', { class: 'faint' }, 'not known here') : show(value));
const bad = (value) => el('span', { class: value > 0 ? 'bad' : false }, number(value));
const sum = (row, name) => row.sums?.[name] ?? -1;
/** What a group has come to, shown; the members of a broadcast group keep it themselves. */
const come = (row, name, show) => (row.settings?.model === 'broadcast' ? el('span', { class: 'faint' }, 'members know') : known(row.sums?.[name], show));

export function groups(main, parameters) {
  const one = parameters.get('group');
  return one ? group(main, one) : list(main);
}

function list(main) {
  let only = '';
  let rows = [];
  const note = el('span', { class: 'note' });
  const table = new Table({
    name: 'Groups',
    empty: 'No group. One is made when its first member joins: grus consume orders --group billing',
    key: (row) => row.groupId,
    columns: [
      { title: 'Group', kind: 'wrap', value: (row) => row.group, cell: (row) => groupLink(row.group) },
      { title: 'Model', kind: 'minor', value: (row) => row.settings?.model ?? '', cell: (row) => row.settings?.model ?? '' },
      { title: 'Members', kind: 'number', value: (row) => row.members ?? -1, cell: (row) => known(row.members) },
      { title: 'Queues', kind: 'number minor', value: (row) => sum(row, 'queues'), cell: (row) => known(row.sums?.queues) },
      { title: 'Lag', kind: 'number', value: (row) => sum(row, 'lag'), cell: (row) => come(row, 'lag') },
      { title: 'Oldest', kind: 'minor', value: (row) => row.sums?.oldest ?? Infinity, cell: (row) => oldest(row.sums?.oldest) },
      { title: 'Retries', kind: 'number', value: (row) => sum(row, 'retries'), cell: (row) => known(row.sums?.retries) },
      { title: 'Dead letters', kind: 'number', value: (row) => sum(row, 'deadLetters'), cell: (row) => known(row.sums?.deadLetters, bad) },
      { title: 'Settled', kind: 'number minor', value: (row) => sum(row, 'settled'), cell: (row) => known(row.sums?.settled) },
    ],
  });
  const show = () => table.show(rows.filter((row) => row.group.toLowerCase().includes(only)));
  const filter = filterBox('Filter by name', (text) => { only = text; show(); });
  main.replaceChildren(head('Groups', note, filter), table.node);
  return async () => {
    const page = await ask('/groups', { max: GROUPS_SHOWN });
    rows = page.groups;
    note.textContent = page.next === null ? number(rows.length) : `the first ${number(rows.length)}`;
    show();
  };
}

/** Since when the oldest message waits. */
const oldest = (at) => (at ? ago(at) : el('span', { class: 'faint' }, 'none'));

function group(main, name) {
  const note = el('span', { class: 'note' });
  const cards = el('div', { class: 'cards' });
  const elsewhere = el('p', { class: 'note', hidden: true });
  const members = memberTable();
  const queues = queueTable();
  const letters = letterList(name);
  main.replaceChildren(
    head(name, note, el('a', { href: '#/groups' }, 'All groups')), cards, elsewhere,
    el('h2', {}, 'Members'), members.node, el('h2', {}, 'Queues'), queues.node, ...letters.nodes,
  );
  return async () => {
    const answer = await ask(path(name), { max: PARTS_SHOWN, membersMax: PARTS_SHOWN });
    note.textContent = answer.settings ? `${answer.settings.model}, ${answer.settings.strategy}` : '';
    showCards(cards, answer);
    elsewhere.hidden = answer.coordinated && !answer.queuesElsewhere;
    elsewhere.textContent = answer.coordinated
      ? `${number(answer.queuesElsewhere ?? 0)} more queues are led by other brokers, and shown there.`
      : `Another broker coordinates this group${answer.coordinator === null ? '' : `: ${answer.coordinator}`}. Its members are shown there.`;
    members.show(answer.memberList ?? []);
    queues.show(answer.queueList);
    await letters.refresh();
  };
}

function showCards(cards, answer) {
  const card = (title, value) => el('div', { class: 'card' }, el('span', {}, title), el('strong', {}, value));
  const { sums } = answer;
  cards.replaceChildren(
    card('Members', known(answer.members)), card('Generation', known(answer.generation)),
    card('Lag', known(sums?.lag)), card('Oldest', oldest(sums?.oldest)), card('Retries', known(sums?.retries)),
    card('Dead letters', known(sums?.deadLetters, bad)), card('Settled', known(sums?.settled)), card('Skipped', known(sums?.skipped)),
  );
}

function memberTable() {
  const subscription = (one) => el('div', {}, one.filter === '*' ? one.topics : `${one.topics}: ${one.filter}`);
  return new Table({
    name: 'Members',
    empty: 'Nobody is in it now.',
    key: (row) => row.member,
    columns: [
      { title: 'Member', kind: 'number', value: (row) => row.member, cell: (row) => row.member },
      { title: 'Client', kind: 'wrap', value: (row) => row.clientId, cell: (row) => [row.clientId || 'unnamed', row.instance && el('small', {}, row.instance)] },
      { title: 'Address', kind: 'mono minor', value: (row) => row.address, cell: (row) => row.address },
      { title: 'Subscribes to', kind: 'wrap', value: (row) => row.subscriptions[0]?.topics ?? '', cell: (row) => row.subscriptions.map(subscription) },
      { title: 'Queues', kind: 'number', value: (row) => row.queues, cell: (row) => number(row.queues) },
      { title: 'Joined', kind: 'minor', value: (row) => -row.joined, cell: (row) => ago(row.joined) },
      { title: 'Heard of', kind: 'minor', value: (row) => -(row.lastSeen ?? 0), cell: (row) => ago(row.lastSeen) },
    ],
  });
}

function queueTable() {
  const owner = (row) => (row.owner === null ? el('span', { class: 'faint' }, 'nobody') : row.nextOwner === null ? row.owner : `${row.owner}, then ${row.nextOwner}`);
  return new Table({
    name: 'Group queues',
    empty: 'It has had no queue here yet.',
    key: (row) => `${row.topicId}/${row.queueId}`,
    columns: [
      { title: 'Topic', kind: 'wrap', value: (row) => row.topic, cell: (row) => row.topic },
      { title: 'Queue', kind: 'number', value: (row) => row.queueId, cell: (row) => row.queueId },
      { title: 'Owner', kind: 'number', value: (row) => row.owner ?? -1, cell: owner },
      { title: 'Floor', kind: 'number', value: (row) => row.floor, cell: (row) => number(row.floor) },
      { title: 'End', kind: 'number minor', value: (row) => row.endOffset, cell: (row) => number(row.endOffset) },
      { title: 'Lag', kind: 'number', value: (row) => row.lag, cell: (row) => number(row.lag) },
      { title: 'Oldest', kind: 'minor', value: (row) => row.oldest ?? Infinity, cell: (row) => oldest(row.oldest) },
      { title: 'Retries', kind: 'number', value: (row) => row.retries, cell: (row) => number(row.retries) },
      { title: 'Next retry', kind: 'minor', value: (row) => row.nextRetry ?? Infinity, cell: (row) => (row.nextRetry ? until(row.nextRetry) : '') },
      { title: 'Dead', kind: 'number minor', value: (row) => row.dead, cell: (row) => bad(row.dead) },
    ],
  });
}

const until = (ms) => el('time', { datetime: new Date(ms).toISOString(), title: moment(ms) },
  ms > Date.now() ? `in ${duration(ms - Date.now())}` : 'due');

/** What the group gave up: shown, sent back, removed. */
function letterList(name) {
  const note = el('span', { class: 'note' });
  const told = el('p', { class: 'note', role: 'status', hidden: true });
  const tell = (text, failed) => {
    told.hidden = false;
    told.className = failed ? 'error' : 'note';
    told.textContent = text;
  };
  const act = async (what, parameters) => {
    try {
      const done = await change(path(name, 'dead-letters', what), parameters);
      const text = what === 'redrive' ? `${number(done.redriven)} sent back${done.more ? ', and there are more' : ''}` : `${number(done.purged)} removed${done.more ? ', and there are more' : ''}`;
      tell(done.queuesElsewhere ? `${text}; those that other brokers lead stay` : text, false);
      await refresh();
    } catch (error) {
      tell(error.message, true);
    }
  };
  const button = (text, click) => el('button', { class: 'act', type: 'button', click }, text);
  const asked = new Map();
  const label = (key, text) => (Date.now() - (asked.get(key) ?? 0) < SURE_MS ? 'Sure?' : text);
  /** A button that is pressed twice: what it does concerns many, or cannot be taken back. */
  const sure = (key, text, act) => button(label(key, text), ({ target }) => {
    const isSure = label(key, text) !== text;
    if (isSure) asked.delete(key);
    else asked.set(key, Date.now());
    target.textContent = label(key, text);
    if (isSure) act();
  });
  const table = new Table({
    name: 'Dead letters',
    empty: 'No dead letters.',
    key: (row) => row.letter,
    columns: [
      { title: 'Letter', kind: 'mono', cell: (row) => letterLink(name, row.letter) },
      { title: 'Since', kind: 'minor', cell: (row) => ago(row.since) },
      { title: 'From', kind: 'wrap', cell: (row) => `${row.origin.topic}/${row.origin.queueId} at ${number(row.origin.offset)}` },
      { title: 'Deliveries', kind: 'number', cell: (row) => number(row.deliveries) },
      { title: 'Reason', kind: 'wrap', cell: (row) => row.reason },
      { title: 'Body', kind: 'wrap minor', cell: (row) => (row.message ? preview(row.message.body) : 'not readable now') },
      { title: '', kind: '', cell: (row) => [button('Send back', () => act('redrive', { letters: row.letter })), ' ', sure(row.letter, 'Remove', () => act('purge', { letters: row.letter }))] },
    ],
  });
  const wholes = [['redrive', 'Send all back'], ['purge', 'Remove all']]
    .map(([what, text]) => ({ what, text, node: sure(what, text, () => act(what, { all: true })) }));
  for (const { what, node } of wholes) node.dataset.what = what;
  const all = el('div', { class: 'pager', hidden: true }, wholes.map((whole) => whole.node));
  const refresh = async () => {
    const page = await ask(path(name, 'dead-letters'), { max: LETTERS_SHOWN, body: 200 });
    note.textContent = page.next ? `the first ${number(page.letters.length)}` : number(page.letters.length);
    all.hidden = page.letters.length === 0;
    for (const { what, text, node } of wholes) node.textContent = label(what, text);
    table.show(page.letters);
  };
  return { nodes: [el('div', { class: 'head' }, el('h2', {}, 'Dead letters'), note), told, all, table.node], refresh };
}

/** All of a letter, with the headers that say why. */
function letterLink(group, letter) {
  const [queue, from] = letter.split('/');
  return el('a', { href: `#/messages?${new URLSearchParams({ topic: `%DLQ%${group}`, queue, from })}` }, letter);
}
