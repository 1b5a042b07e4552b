// The page: which view is open, its refreshing, and what is said when the broker is away.

import { Lost, ask, duration, el } from './parts.js';
import { actors, clients, config, health, queues, topics } from './views.js';
import { messages } from './messages.js';
import { scheduled } from './scheduled.js';
import { groups } from './groups.js';

const VIEWS = { queues, topics, messages, scheduled, groups, clients, actors, health, config };
const REFRESH_MS = 2000;

const main = document.getElementById('main');
const live = document.getElementById('live');
const lost = document.getElementById('lost');
const statusText = document.getElementById('status-text');

let view = null; // { name, refresh }
let timer = null;
let turn = 0;

function go(name, parameters) {
  const address = `#/${name}?${new URLSearchParams(parameters)}`;
  if (location.hash === address) open(true);
  else location.hash = address;
}

function open(byUser) {
  const [name, query] = location.hash.replace(/^#\/?/, '').split('?');
  const known = Object.hasOwn(VIEWS, name) ? name : 'queues';
  for (const link of document.querySelectorAll('#nav a')) {
    if (link.getAttribute('href') === `#/${known}`) link.setAttribute('aria-current', 'page');
    else link.removeAttribute('aria-current');
  }
  document.title = `${known} · Grus broker`;
  main.removeAttribute('data-loaded');
  view = { name: known, refresh: VIEWS[known](main, new URLSearchParams(query), go) };
  if (byUser) main.focus({ preventScroll: true });
  refresh();
}

/** Brings everything up to date, and again after a while; an older turn has nothing to say. */
async function refresh() {
  clearTimeout(timer);
  turn += 1;
  const mine = turn;
  const shown = view;
  try {
    const now = await ask('/health', {}, [503]);
    if (mine !== turn) return;
    statusIs(now);
    await shown.refresh();
    if (mine !== turn) return;
    showError(null);
    main.dataset.loaded = shown.name;
  } catch (error) {
    if (mine !== turn) return;
    if (error instanceof Lost) lostNow();
    else showError(error);
  }
  if (live.checked || document.body.dataset.state === 'lost') timer = setTimeout(refresh, REFRESH_MS);
}

function statusIs(now) {
  document.body.dataset.state = now.status === 'ok' ? 'live' : 'unavailable';
  lost.hidden = true;
  const says = now.status === 'ok' ? 'serving' : 'not everything is served';
  statusText.textContent = `${says}, version ${now.version}, up for ${duration(now.uptimeMs)}`;
}

function lostNow() {
  document.body.dataset.state = 'lost';
  statusText.textContent = 'no answer';
  lost.textContent = 'The broker does not answer. What is shown may be old; it is asked again until it does.';
  lost.hidden = false;
}

function showError(error) {
  main.querySelector('.error.view')?.remove();
  if (!error) return;
  main.dataset.loaded = view.name;
  main.append(el('p', { class: 'error view', role: 'alert' }, error.message));
}

live.addEventListener('change', refresh);
window.addEventListener('hashchange', () => open(true));
document.addEventListener('visibilitychange', () => { if (!document.hidden) refresh(); });
open(false);
