// What every view is made of. Text reaches the page as text nodes only: nothing that a message,
// a client or a topic says is ever read as markup.

/** An element. Attributes that are functions become listeners, children that are text stay text. */
export function el(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (typeof value === 'function') made.addEventListener(key, value);
    else if (value === true) made.setAttribute(key, '');
    else if (value !== false && value != null) made.setAttribute(key, value);
  }
  made.append(...children.flat().filter((child) => child != null));
  return made;
}

/** What the broker said instead of an answer. */
export class Refused extends Error {
  constructor(status, body) {
    super(body?.error ?? `the broker answered with status ${status}`);
    this.status = status;
    this.code = body?.code;
  }
}

/** The broker did not say anything. */
export class Lost extends Error {}

const ANSWER_MS_MAX = 10_000;

/** Asks the API. Statuses in `accepted` are answers as well. */
export const ask = (path, parameters = {}, accepted = []) => call(path, parameters, accepted, {});

/** Changes something. The header says that it is meant: a page of another site cannot send it. */
export const change = (path, parameters = {}) =>
  call(path, parameters, [], { method: 'POST', headers: { 'Grus-Change': 'yes' } });

async function call(path, parameters, accepted, how) {
  const given = Object.entries(parameters).filter(([, value]) => value != null && value !== '');
  const query = new URLSearchParams(given).toString();
  let answer;
  let body;
  try {
    answer = await fetch(query ? `${path}?${query}` : path, { ...how, signal: AbortSignal.timeout(ANSWER_MS_MAX) });
    body = await answer.text();
  } catch (failure) {
    throw new Lost(failure.message);
  }
  let json;
  try {
    json = JSON.parse(body);
  } catch {
    throw new Refused(answer.status, null);
  }
  if (!answer.ok && !accepted.includes(answer.status)) throw new Refused(answer.status, json);
  return json;
}

const numbers = new Intl.NumberFormat('en');

export const number = (value) => numbers.format(value);

export function bytes(value) {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB'];
  let at = 0;
  while (value >= 1024 && at < units.length - 1) {
    value /= 1024;
    at += 1;
  }
  return `${at === 0 || value >= 100 ? Math.round(value) : value.toFixed(1)} ${units[at]}`;
}

export function duration(ms) {
  if (ms < 1000) return `${Math.round(ms)} ms`;
  const steps = [[86_400_000, 'd'], [3_600_000, 'h'], [60_000, 'min'], [1000, 's']];
  const at = steps.findIndex(([size]) => ms >= size);
  const [size, unit] = steps[at];
  const whole = Math.floor(ms / size);
  if (at === 3 || at === 0 && ms % size === 0) return `${whole} ${unit}`;
  const [nextSize, nextUnit] = steps[at + 1];
  const rest = Math.floor((ms % size) / nextSize);
  return rest ? `${whole} ${unit} ${rest} ${nextUnit}` : `${whole} ${unit}`;
}

const two = (value) => String(value).padStart(2, '0');

/** A moment by the reader's clock, with milliseconds. */
export function moment(ms) {
  const at = new Date(ms);
  const day = `${at.getFullYear()}-${two(at.getMonth() + 1)}-${two(at.getDate())}`;
  const clock = `${two(at.getHours())}:${two(at.getMinutes())}:${two(at.getSeconds())}`;
  return `${day} ${clock}.${String(at.getMilliseconds()).padStart(3, '0')}`;
}

/** How long ago, with the moment itself as its title. */
export function ago(ms) {
  if (!ms) return el('span', { class: 'faint' }, 'never');
  const passed = Math.max(0, Date.now() - ms);
  return el('time', { datetime: new Date(ms).toISOString(), title: moment(ms) },
    passed < 1000 ? 'just now' : `${duration(passed).split(' ').slice(0, 2).join(' ')} ago`);
}

/** The end of a long body, short and on one line. */
export function preview(piece) {
  const text = piece.encoding === 'base64' ? `${piece.value.slice(0, 60)} (bytes)` : piece.value.slice(0, 200);
  return text.replace(/\s+/g, ' ');
}

const ROWS_SHOWN_MAX = 500;

/**
 * A table that is brought up to date in place, so that focus, selection and scrolling stay.
 * Columns: { title, cell(row), value(row)?, kind: 'number' | 'minor' | 'wrap' ... }.
 */
export class Table {
  constructor({ name, columns, key, empty }) {
    Object.assign(this, { columns, key, empty, rows: [], bodyRows: new Map(), order: null });
    this.heads = columns.map((column, at) => el('th', { scope: 'col', class: column.kind },
      column.value ? el('button', { type: 'button', click: () => this.sortBy(at) }, column.title) : column.title));
    this.body = el('tbody');
    this.table = el('table', { 'aria-label': name, 'data-name': name }, el('thead', {}, el('tr', {}, this.heads)), this.body);
    this.scroll = el('div', { class: 'scroll' }, this.table);
    this.note = el('p', { class: 'empty', hidden: true });
    this.rest = el('p', { class: 'note', hidden: true });
    this.node = el('div', {}, this.scroll, this.note, this.rest);
  }

  sortBy(at) {
    const same = this.order?.at === at;
    this.order = same && this.order.down ? null : { at, down: same };
    this.heads.forEach((head, other) => {
      if (other === at && this.order) head.setAttribute('aria-sort', this.order.down ? 'descending' : 'ascending');
      else head.removeAttribute('aria-sort');
    });
    this.show(this.rows);
  }

  sorted(rows) {
    if (!this.order) return rows;
    const { value } = this.columns[this.order.at];
    const sign = this.order.down ? -1 : 1;
    return [...rows].sort((left, right) => {
      const [a, b] = [value(left), value(right)];
      return sign * (typeof a === 'number' ? a - b : String(a).localeCompare(String(b)));
    });
  }

  show(rows) {
    this.rows = rows;
    const shown = this.sorted(rows).slice(0, ROWS_SHOWN_MAX);
    const left = rows.length - shown.length;
    const seen = new Set();
    shown.forEach((row, at) => {
      const key = String(this.key(row));
      seen.add(key);
      let line = this.bodyRows.get(key);
      if (!line) {
        line = el('tr', { 'data-key': key }, this.columns.map((column) => el('td', { class: column.kind })));
        this.bodyRows.set(key, line);
      }
      this.columns.forEach((column, cell) => fill(line.children[cell], column.cell(row)));
      if (this.body.children[at] !== line) this.body.insertBefore(line, this.body.children[at] ?? null);
    });
    for (const [key, line] of this.bodyRows) {
      if (!seen.has(key)) {
        line.remove();
        this.bodyRows.delete(key);
      }
    }
    this.scroll.hidden = rows.length === 0;
    this.note.hidden = rows.length > 0;
    this.note.textContent = this.empty;
    this.rest.hidden = left === 0;
    this.rest.textContent = `${number(left)} more are not shown. Narrow the filter to see them.`;
  }
}

/** Changes a cell only when it says something else. */
function fill(cell, content) {
  const parts = (Array.isArray(content) ? content : [content])
    .filter((part) => part != null)
    .map((part) => (part instanceof Node ? part : document.createTextNode(String(part))));
  const now = Array.from(cell.childNodes);
  const same = now.length === parts.length && now.every((node, at) => node.isEqualNode(parts[at]));
  if (!same) cell.replaceChildren(...parts);
}

/** A box that narrows a table while one types. */
export function filterBox(name, changed) {
  return el('input', { type: 'search', placeholder: name, 'aria-label': name, input: (event) => changed(event.target.value.trim().toLowerCase()) });
}

/** The head of a view. */
export function head(title, ...others) {
  return el('div', { class: 'head' }, el('h1', {}, title), ...others);
}
