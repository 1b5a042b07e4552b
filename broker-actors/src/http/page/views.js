// The views that are a picture of one moment: each has `open`, which builds it, and answers a
// function that brings it up to date.

import { Table, ago, ask, bytes, duration, el, filterBox, head, number } from './parts.js';

/** Most rows that a listing is asked for. */
const LISTED_MAX = 10_000;
const ACTORS_MAX = 1_000;

const browseLink = (topic, queue, text) =>
  el('a', { href: `#/messages?${new URLSearchParams({ topic, queue, from: 'newest' })}` }, text);

export function queues(main) {
  let only = '';
  let rows = [];
  const note = el('span', { class: 'note' });
  const table = new Table({
    name: 'Queues',
    empty: 'No queue. A topic is made when the first message for it arrives: grus produce orders',
    key: (row) => `${row.topic}/${row.queueId}`,
    columns: [
      { title: 'Topic', kind: 'wrap', value: (row) => row.topic, cell: (row) => row.topic },
      { title: 'Queue', kind: 'number', value: (row) => row.queueId, cell: (row) => row.queueId },
      { title: 'Kind', kind: 'minor', value: (row) => row.type, cell: (row) => row.type },
      { title: 'Write pointer', kind: 'number', value: (row) => row.writePointer, cell: (row) => number(row.writePointer) },
      { title: 'Flush pointer', kind: 'number minor', value: (row) => row.flushPointer, cell: (row) => number(row.flushPointer) },
      { title: 'Messages', kind: 'number', value: (row) => row.messageNumber, cell: (row) => number(row.messageNumber) },
      { title: 'Last stored', kind: 'minor', value: (row) => row.lastModifiedTime, cell: (row) => ago(row.lastModifiedTime) },
      { title: '', kind: '', cell: (row) => browseLink(row.topic, row.queueId, 'Browse') },
    ],
  });
  const show = () => {
    const some = rows.filter((row) => row.topic.toLowerCase().includes(only));
    table.show(some);
    const messages = some.reduce((sum, row) => sum + row.messageNumber, 0);
    const first = rows.length < LISTED_MAX ? '' : 'of the first ';
    note.textContent = `${first}${number(some.length)} queues, ${number(messages)} messages`;
  };
  const filter = filterBox('Filter by topic', (text) => { only = text; show(); });
  main.replaceChildren(head('Queues', note, filter), table.node);
  return async () => { rows = await ask('/queue/list', { max: LISTED_MAX }); show(); };
}

// What a queue may have at most, and whether more is refused.
function cap(row) {
  const caps = [
    row.retentionBytes ? bytes(row.retentionBytes) : '',
    row.retentionMessages ? `${number(row.retentionMessages)} messages` : '',
  ].filter(Boolean);
  if (!caps.length) return 'none';
  return `${caps.join(', ')}${row.whenFull === 'reject' ? ', then refuses' : ''}`;
}

export function topics(main) {
  let only = '';
  let rows = [];
  const table = new Table({
    name: 'Topics',
    empty: 'No topic. One is made when the first message for it arrives, or by: grus topic create orders',
    key: (row) => row.name,
    columns: [
      { title: 'Topic', kind: 'wrap', value: (row) => row.name, cell: (row) => row.name },
      { title: 'Kind', kind: 'minor', value: (row) => row.type, cell: (row) => row.type },
      { title: 'Durability', kind: 'minor', value: (row) => row.durability, cell: (row) => row.durability },
      { title: 'Queues', kind: 'number', value: (row) => row.queues, cell: (row) => (row.queuesSilent ? `${row.queues} (${row.queuesSilent} silent)` : row.queues) },
      { title: 'Messages', kind: 'number', value: (row) => row.messages, cell: (row) => number(row.messages) },
      { title: 'Size', kind: 'number', value: (row) => row.bytes, cell: (row) => bytes(row.bytes) },
      { title: 'Kept for', kind: 'number minor', value: (row) => row.retentionMs || Infinity, cell: (row) => (row.retentionMs ? duration(row.retentionMs) : 'ever') },
      { title: 'Cap per queue', kind: 'number minor', value: (row) => row.retentionBytes || Infinity, cell: cap },
      { title: 'Last stored', kind: 'minor', value: (row) => row.lastModifiedTime, cell: (row) => ago(row.lastModifiedTime) },
      { title: 'Made', kind: 'minor', value: (row) => row.created, cell: (row) => ago(row.created) },
      { title: '', kind: '', cell: (row) => browseLink(row.name, 0, 'Browse') },
    ],
  });
  const show = () => table.show(rows.filter((row) => row.name.toLowerCase().includes(only)));
  const filter = filterBox('Filter by name', (text) => { only = text; show(); });
  main.replaceChildren(head('Topics', el('span', { class: 'note' }, 'with their settings'), filter), table.node);
  return async () => { rows = await ask('/topics'); show(); };
}

export function clients(main) {
  const note = el('span', { class: 'note' });
  const connections = new Table({
    name: 'Clients',
    empty: 'Nobody is connected.',
    key: (row) => row.connection,
    columns: [
      { title: 'Client', kind: 'wrap', value: (row) => row.clientId, cell: (row) => [row.clientId || 'unnamed', el('small', {}, row.software)] },
      { title: 'Address', kind: 'mono', value: (row) => row.address, cell: (row) => row.address },
      { title: 'Connected', kind: 'minor', value: (row) => -row.connectedTime, cell: (row) => ago(row.connectedTime) },
      { title: 'Silent for', kind: 'number minor', value: (row) => row.silentMs, cell: (row) => duration(row.silentMs) },
      { title: 'Requests', kind: 'number', value: (row) => row.requests, cell: (row) => number(row.requests) },
      { title: 'In flight', kind: 'number', value: (row) => row.inFlight, cell: (row) => `${number(row.inFlight)} (${bytes(row.inFlightBytes)})` },
      { title: 'Waiting for it', kind: 'number minor', value: (row) => row.waitingBytes, cell: (row) => bytes(row.waitingBytes) },
      { title: 'Producers', kind: 'number minor', value: (row) => row.producers.length, cell: (row) => row.producers.length },
      { title: 'Readers', kind: 'number minor', value: (row) => row.readers.length, cell: (row) => row.readers.length },
    ],
  });
  const producers = new Table({
    name: 'Producers',
    empty: 'Nobody produces.',
    key: (row) => `${row.connection}/${row.producerId}`,
    columns: [
      { title: 'Producer', kind: 'wrap', value: (row) => row.name ?? '', cell: (row) => row.name ?? (row.producerId !== '0' ? 'unnamed' : 'without an identity') },
      { title: 'Id', kind: 'number', value: (row) => row.producerId, cell: (row) => row.producerId },
      { title: 'Epoch', kind: 'number minor', value: (row) => row.epoch, cell: (row) => row.epoch },
      { title: 'Topic', kind: 'wrap', value: (row) => row.topic ?? '', cell: (row) => row.topic ?? '' },
      { title: 'Last seen', kind: 'minor', value: (row) => -row.lastTime, cell: (row) => ago(row.lastTime) },
      { title: 'Batches', kind: 'number minor', value: (row) => row.batches, cell: (row) => number(row.batches) },
      { title: 'Messages', kind: 'number', value: (row) => row.messages, cell: (row) => number(row.messages) },
      { title: 'Client', kind: 'wrap', value: (row) => row.clientId, cell: (row) => `${row.clientId || 'unnamed'} at ${row.address}` },
    ],
  });
  const readers = new Table({
    name: 'Readers',
    empty: 'Nobody reads.',
    key: (row) => `${row.connection}/${row.topic}/${row.queueId}/${row.mode}`,
    columns: [
      { title: 'Topic', kind: 'wrap', value: (row) => row.topic, cell: (row) => row.topic },
      { title: 'Queue', kind: 'number', value: (row) => row.queueId, cell: (row) => row.queueId },
      { title: 'By', kind: 'minor', value: (row) => row.mode, cell: (row) => row.mode },
      { title: 'Asked for offset', kind: 'number', value: (row) => row.offset ?? -1, cell: (row) => (row.offset == null ? '' : number(row.offset)) },
      { title: 'Last seen', kind: 'minor', value: (row) => -row.lastTime, cell: (row) => ago(row.lastTime) },
      { title: 'Times', kind: 'number minor', value: (row) => row.fetches, cell: (row) => (row.mode === 'push' ? '' : number(row.fetches)) },
      { title: 'Client', kind: 'wrap', value: (row) => row.clientId, cell: (row) => `${row.clientId || 'unnamed'} at ${row.address}` },
    ],
  });
  const of = (client, part) => client[part].map((item) => ({ ...item, connection: client.connection, clientId: client.clientId, address: client.address }));
  main.replaceChildren(head('Clients', note), connections.node, el('h2', {}, 'Producers'), producers.node, el('h2', {}, 'Readers'), readers.node);
  return async () => {
    const answer = await ask('/clients');
    const { clients: rows } = answer;
    connections.show(rows);
    producers.show(rows.flatMap((client) => of(client, 'producers')));
    readers.show(rows.flatMap((client) => of(client, 'readers')));
    note.textContent = answer.next ? `the first ${number(rows.length)}` : `${number(rows.length)} connected`;
  };
}

export function actors(main) {
  let only = '';
  let rows = [];
  const load = (row) => `${number(row.handled ? Math.round(row.busy_us / row.handled * 10) / 10 : 0)} µs`;
  const waiting = (row) => el('span', { class: row.oldest_waiting_ms > 1000 ? 'bad' : false }, duration(row.oldest_waiting_ms));
  const restarts = (row) => el('span', { class: row.restarts > 0 ? 'bad' : false }, number(row.restarts));
  const columns = [
    { title: 'Waiting', kind: 'number', value: (row) => row.queued, cell: (row) => number(row.queued) },
    { title: 'Oldest', kind: 'number minor', value: (row) => row.oldest_waiting_ms, cell: waiting },
    { title: 'Handled', kind: 'number', value: (row) => row.handled, cell: (row) => number(row.handled) },
    { title: 'Busy', kind: 'number minor', value: (row) => row.busy_us, cell: (row) => duration(row.busy_us / 1000) },
    { title: 'Each', kind: 'number minor', value: (row) => (row.handled ? row.busy_us / row.handled : 0), cell: load },
    { title: 'Restarts', kind: 'number', value: (row) => row.restarts, cell: restarts },
  ];
  const kinds = new Table({
    name: 'Kinds of actors',
    empty: 'No actor.',
    key: (row) => row.kind,
    columns: [
      { title: 'Kind', kind: '', value: (row) => row.kind, cell: (row) => row.kind },
      { title: 'Actors', kind: 'number', value: (row) => row.actors, cell: (row) => number(row.actors) },
      ...columns,
    ],
  });
  const each = new Table({
    name: 'Actors',
    empty: 'No actor of that name.',
    key: (row) => `${row.kind}/${row.name}/${row.place}`,
    columns: [
      { title: 'Actor', kind: 'wrap', value: (row) => `${row.kind}/${row.name}`, cell: (row) => `${row.kind}/${row.name}` },
      { title: 'Place', kind: 'minor', value: (row) => row.place, cell: (row) => row.place },
      ...columns,
      {
        title: 'Inboxes', kind: 'minor', cell: (row) => row.inboxes.filter((inbox) => inbox.depth > 0)
          .map((inbox) => el('div', { class: inbox.depth === inbox.capacity ? 'bad' : false }, `${inbox.message} ${number(inbox.depth)} of ${number(inbox.capacity)}`)),
      },
    ],
  });
  const show = () => each.show(rows.filter((row) => `${row.kind}/${row.name}`.toLowerCase().includes(only)));
  const filter = filterBox('Filter by kind or name', (text) => { only = text; show(); });
  const note = el('span', { class: 'note' });
  main.replaceChildren(head('Actors', note), kinds.node, el('h2', {}, 'Each one'), el('div', { class: 'head' }, filter), each.node);
  return async () => {
    const answer = await ask('/actors', { max: ACTORS_MAX });
    kinds.show(answer.kinds);
    rows = answer.actors;
    note.textContent = answer.next === null ? '' : `the first ${number(rows.length)} one by one`;
    show();
  };
}

export function health(main) {
  const cards = el('div', { class: 'cards' });
  const note = el('span', { class: 'note' });
  const yes = (value, good) => el('span', { class: value === good ? 'good' : 'bad' }, value ? 'yes' : 'no');
  const shards = new Table({
    name: 'Shards',
    empty: 'No shard.',
    key: (row) => row.shard,
    columns: [
      { title: 'Shard', kind: 'number', value: (row) => row.shard, cell: (row) => row.shard },
      { title: 'Durability', kind: '', value: (row) => row.durability, cell: (row) => row.durability },
      { title: 'Ready', kind: '', value: (row) => Number(row.ready), cell: (row) => yes(row.ready, true) },
      { title: 'Disk full', kind: '', value: (row) => Number(row.diskFull), cell: (row) => yes(row.diskFull, false) },
      { title: 'Queues', kind: 'number', value: (row) => row.queues, cell: (row) => number(row.queues) },
      { title: 'Segments', kind: 'number minor', value: (row) => row.segments, cell: (row) => number(row.segments) },
      { title: 'Log on disk', kind: 'number minor', value: (row) => row.logBytes, cell: (row) => bytes(row.logBytes) },
    ],
  });
  const card = (name, value) => el('div', { class: 'card' }, el('span', {}, name), el('strong', {}, value));
  main.replaceChildren(head('Health', note), cards, shards.node);
  return async () => {
    const answer = await ask('/health', {}, [503]);
    note.textContent = answer.status === 'ok' ? 'the broker serves' : 'the broker does not serve everything';
    cards.replaceChildren(
      card('Status', answer.status), card('Version', answer.version), card('Up for', duration(answer.uptimeMs)),
      card('Connections', number(answer.connections)), card('Topics', number(answer.topics)), card('Broker id', String(answer.brokerId)),
    );
    shards.show(answer.shards);
  };
}

export function config(main) {
  let only = '';
  let rows = [];
  const table = new Table({
    name: 'Configuration',
    empty: 'No such key.',
    key: (row) => row.key,
    columns: [
      { title: 'Key', kind: 'mono', value: (row) => row.key, cell: (row) => [row.key, el('small', {}, row.about)] },
      { title: 'Value', kind: 'mono wrap', value: (row) => row.value, cell: (row) => row.value },
      { title: 'From', kind: 'wrap', value: (row) => row.source, cell: (row) => el('span', { class: row.source === 'default' ? 'faint' : 'pill' }, row.source) },
    ],
  });
  const show = () => table.show(rows.filter((row) => `${row.key} ${row.about}`.toLowerCase().includes(only)));
  const filter = filterBox('Filter', (text) => { only = text; show(); });
  main.replaceChildren(head('Configuration', el('span', { class: 'note' }, 'file < environment < command line'), filter), table.node);
  return async () => { rows = await ask('/config'); show(); };
}
