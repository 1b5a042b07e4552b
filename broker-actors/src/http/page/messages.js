// Browsing the messages of one queue. Where it stands is in the address, so that a place can be
// shared and the browser's own way back works.

import { ask, bytes, el, head, moment, number, preview } from './parts.js';

const PAGE_MESSAGES = 50;
const WHOLE_BODY_BYTES = 16 * 1024 * 1024;
const HEX_BYTES_SHOWN = 64 * 1024;

export function messages(main, parameters, go) {
  const topic = parameters.get('topic') ?? '';
  const queue = parameters.get('queue') ?? '0';
  const time = parameters.get('time');
  const from = parameters.get('from') ?? (time ? null : 'newest');
  const by = ['id', 'key'].find((name) => parameters.get(name));
  const note = el('span', { class: 'note' });
  const list = el('div', { id: 'list' });
  const pager = el('div', { class: 'pager', hidden: true });
  const search = searchForm({ topic, by, text: by ? parameters.get(by) : '' }, go);
  main.replaceChildren(head('Messages', note), form({ topic, queue, from, time }, go), search, pager, list);
  if (by) return () => find(list, note, { topic, [by]: parameters.get(by) });
  if (!topic) {
    list.replaceChildren(el('p', { class: 'empty' }, 'Choose a topic and a queue.'));
  }
  let shown = false;
  return async () => {
    await fillTopics(main, topic);
    if (!topic || shown && from !== 'newest' && list.dataset.complete) return; // what is stored stays as it is
    let page;
    try {
      page = await ask('/messages', { topic, queue, from, time, max: PAGE_MESSAGES });
    } catch (error) {
      if (error.status) list.replaceChildren();
      pager.hidden = true;
      note.textContent = '';
      throw error;
    }
    shown = true;
    list.dataset.complete = page.messages.length >= PAGE_MESSAGES ? 'yes' : '';
    note.textContent = `${topic}/${queue}: offsets ${number(page.logStart)} to ${number(page.endOffset)}`;
    showList(list, page);
    showPager(pager, page, go, { topic, queue });
  };
}

function form(at, go) {
  const kind = at.time ? 'time' : /^\d+$/.test(at.from) ? 'offset' : at.from;
  const topic = el('input', { name: 'topic', list: 'topics', value: at.topic, autocomplete: 'off', required: true });
  const queue = el('input', { name: 'queue', type: 'number', min: 0, value: at.queue, size: 5 });
  const option = (value, text) => el('option', { value, selected: kind === value }, text);
  const where = el('select', { name: 'where' }, option('newest', 'the newest'), option('first', 'the first'), option('offset', 'an offset'), option('time', 'a time'));
  const offset = el('input', { name: 'offset', type: 'number', min: 0, value: kind === 'offset' ? at.from : '0' });
  const time = el('input', { name: 'time', type: 'datetime-local', step: '1', value: localTime(at.time ? Number(at.time) : Date.now() - 3_600_000) });
  const offsetLabel = el('label', {}, 'Offset', offset);
  const timeLabel = el('label', {}, 'Stored at or after', time);
  const fit = () => {
    offsetLabel.hidden = where.value !== 'offset';
    timeLabel.hidden = where.value !== 'time';
  };
  where.addEventListener('change', fit);
  fit();
  const submit = (event) => {
    event.preventDefault();
    const next = { topic: topic.value.trim(), queue: queue.value || '0' };
    if (where.value === 'time') next.time = String(new Date(time.value).getTime());
    else next.from = where.value === 'offset' ? offset.value : where.value;
    go('messages', next);
  };
  return el('form', { submit, 'aria-label': 'Which messages' },
    el('label', {}, 'Topic', topic), el('datalist', { id: 'topics' }), el('label', {}, 'Queue', queue),
    el('label', {}, 'From', where), offsetLabel, timeLabel, el('button', { class: 'act main', type: 'submit' }, 'Show'));
}

function searchForm(at, go) {
  const text = el('input', { name: 'text', type: 'search', value: at.text, required: true, autocomplete: 'off' });
  const option = (value, shown) => el('option', { value, selected: at.by === value }, shown);
  const by = el('select', { name: 'by' }, option('id', 'id'), option('key', 'key, in a topic'));
  const topic = el('input', { name: 'topic', list: 'topics', value: at.topic, autocomplete: 'off' });
  const label = el('label', {}, 'Topic', topic);
  const fit = () => {
    label.hidden = by.value !== 'key';
    topic.required = by.value === 'key';
  };
  by.addEventListener('change', fit);
  fit();
  const submit = (event) => {
    event.preventDefault();
    const wanted = by.value === 'key' ? { topic: topic.value.trim(), key: text.value } : { id: text.value.trim() };
    go('messages', wanted);
  };
  return el('form', { submit, class: 'find', 'aria-label': 'Find a message' },
    el('label', {}, 'Find by', by), label, el('label', {}, 'Value', text), el('button', { class: 'act', type: 'submit' }, 'Find'));
}

/** Messages by id or key, wherever they are. What is shown stays: nothing is asked twice. */
async function find(list, note, wanted) {
  if (list.dataset.found) return;
  const found = await ask('/message/find', wanted);
  list.dataset.found = 'yes';
  note.textContent = `${number(found.messages.length)} found${found.more ? ', and there are more' : ''}${found.unsearchedBytes ? `; ${bytes(found.unsearchedBytes)} were not searched` : ''}`;
  if (found.messages.length === 0) {
    list.replaceChildren(el('p', { class: 'empty' }, 'No such message.'));
    return;
  }
  list.replaceChildren(...found.messages.map((message) => messageItem(message, message)));
}

function localTime(ms) {
  const at = new Date(ms);
  return new Date(ms - at.getTimezoneOffset() * 60_000).toISOString().slice(0, 19);
}

async function fillTopics(main, topic) {
  const names = main.querySelector('#topics');
  if (names.childElementCount > 0 && topic) return;
  const topics = await ask('/topics');
  names.replaceChildren(...topics.slice(0, 1000).map((item) => el('option', { value: item.name })));
}

function showPager(pager, page, go, at) {
  const first = page.messages[0]?.offset ?? page.endOffset;
  const older = Math.max(page.logStart, first - PAGE_MESSAGES);
  const step = (text, from, possible) =>
    el('button', { class: 'act', type: 'button', disabled: !possible, click: () => go('messages', { ...at, from: String(from) }) }, text);
  pager.hidden = false;
  pager.replaceChildren(
    step('First', 'first', first > page.logStart), step('Older', older, first > page.logStart),
    step('Newer', page.next ?? page.endOffset, page.next != null), step('Newest', 'newest', page.next != null),
  );
}

/** Shows messages; those that stand there already stay as they are, open or closed. */
function showList(list, page) {
  if (page.messages.length === 0) {
    const why = page.endOffset === page.logStart ? 'This queue has no messages.' : 'No messages from there on.';
    list.replaceChildren(el('p', { class: 'empty' }, why));
    return;
  }
  const standing = new Map(Array.from(list.querySelectorAll('.message'), (item) => [item.dataset.offset, item]));
  list.replaceChildren(...page.messages.map((message) => standing.get(String(message.offset)) ?? messageItem(page, message)));
}

function messageItem(page, message) {
  const inside = el('div', { class: 'inside' });
  const marks = [message.tag && el('span', { class: 'pill' }, message.tag), message.tombstone && el('span', { class: 'pill' }, 'tombstone')].filter(Boolean);
  const item = el('details', { class: 'message', 'data-offset': message.offset },
    el('summary', {},
      el('span', { class: 'offset mono' }, number(message.offset)), el('span', { class: 'faint' }, moment(message.storeTime)),
      el('span', { class: 'size' }, bytes(message.bodyBytes)),
      el('span', { class: 'preview' }, ...marks, marks.length ? ' ' : '', message.bodyBytes === 0 ? el('span', { class: 'faint' }, 'empty body') : preview(message.body))),
    inside);
  item.addEventListener('toggle', () => {
    if (item.open && inside.childElementCount === 0) inside.append(...details(page, message));
  });
  return item;
}

const plain = (piece) => piece && (piece.encoding === 'base64' ? `${piece.value} (base64)` : piece.value);

function details(page, message) {
  const facts = [
    ['Place', `${page.topic}/${page.queueId}`], ['Id', message.id], ['Tag', message.tag], ['Keys', message.keys.map(plain).join(', ')],
    ['Born', moment(message.bornTime)], ['Stored', moment(message.storeTime)],
    ['Due', message.deliverAt && moment(message.deliverAt)], ['Delay', message.delayMs && `${number(message.delayMs)} ms`], ['Lives for', message.ttlMs && `${number(message.ttlMs)} ms`],
    ['Order key', plain(message.orderKey)], ['Dedup key', plain(message.dedupKey)], ['Lane', message.lane],
    ['Priority', message.priority], ['Retries', message.retryCount || null],
    ['Origin', message.origin && `${message.origin.topic}/${message.origin.queueId} at ${message.origin.offset}`],
    ['Producer', message.producerId !== '0' ? `${message.producerId}, epoch ${message.producerEpoch}` : null],
    ['Size', message.bodyBytes < 1024 ? bytes(message.bodyBytes) : `${bytes(message.bodyBytes)} (${number(message.bodyBytes)} B)`],
  ];
  const pairs = (list) => list.filter(([, value]) => value != null && value !== '')
    .flatMap(([name, value]) => [el('dt', {}, name), el('dd', { class: 'mono' }, String(value))]);
  const headers = message.headers.map((header) => [header.name, plain(header) || '(empty)']);
  return [
    el('dl', {}, pairs(facts)),
    ...(headers.length ? [el('h2', {}, 'Headers'), el('dl', { class: 'headers' }, pairs(headers))] : []),
    el('h2', {}, 'Body'), body(page, message),
  ];
}

function body(page, message) {
  const box = el('div', { class: 'body' });
  const show = (piece, truncated) => {
    const views = viewsOf(piece, message.bodyBytes);
    const shown = el('div', {});
    const choose = (view) => shown.replaceChildren(view.make());
    const select = el('select', { 'aria-label': 'Show the body as', change: (event) => choose(views[event.target.value]) },
      views.map((view, at) => el('option', { value: at }, view.name)));
    const whole = truncated && el('button', { class: 'act', type: 'button', click: () => load() }, `Show all ${bytes(message.bodyBytes)}`);
    box.replaceChildren(el('div', { class: 'tools' }, select, whole || null, truncated ? el('span', { class: 'note' }, 'the beginning only') : null), shown);
    choose(views[0]);
  };
  const load = async () => {
    try {
      const parameters = { topic: page.topic, queue: page.queueId, from: message.offset, max: 1, body: WHOLE_BODY_BYTES };
      const [same] = (await ask('/messages', parameters)).messages;
      if (same?.offset !== message.offset) throw new Error('the message is not there any more');
      show(same.body, same.truncated);
    } catch (error) {
      box.append(el('p', { class: 'error' }, error.message));
    }
  };
  if (message.bodyBytes === 0) return el('p', { class: 'empty' }, 'The body is empty.');
  show(message.body, message.truncated);
  return box;
}

function viewsOf(piece, bodyBytes) {
  const raw = piece.encoding === 'base64'
    ? Uint8Array.from(atob(piece.value), (character) => character.charCodeAt(0))
    : new TextEncoder().encode(piece.value);
  const hex = { name: 'Hex', make: () => el('pre', { class: 'hex', tabindex: 0 }, dump(raw, bodyBytes)) };
  if (piece.encoding === 'base64') return [hex];
  const text = { name: 'Text', make: () => el('pre', { tabindex: 0 }, piece.value) };
  try {
    const value = JSON.parse(piece.value);
    if (value !== null && typeof value === 'object') {
      return [{ name: 'JSON', make: () => el('pre', { class: 'json', tabindex: 0 }, JSON.stringify(value, null, 2)) }, text, hex];
    }
  } catch {
    // not JSON
  }
  return [text, hex];
}

/** Bytes as hexadecimal, 16 a line, with their text beside them. */
function dump(raw, bodyBytes) {
  const lines = [];
  const end = Math.min(raw.length, HEX_BYTES_SHOWN);
  for (let at = 0; at < end; at += 16) {
    const some = Array.from(raw.subarray(at, Math.min(at + 16, end)));
    const hex = some.map((byte) => byte.toString(16).padStart(2, '0')).join(' ').padEnd(47);
    const text = some.map((byte) => (byte >= 32 && byte < 127 ? String.fromCharCode(byte) : '.')).join('');
    lines.push(`${at.toString(16).padStart(8, '0')}  ${hex}  ${text}`);
  }
  if (end < bodyBytes) lines.push(`... ${number(bodyBytes - end)} more bytes`);
  return lines.join('\n');
}
