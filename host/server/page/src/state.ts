// What the page knows: the chats, the server, and what is open. Everything changes through the functions here.

import { computed, signal, type Signal } from '@preact/signals';
import { key, serverInfo, ServerError, type ServerInfo } from './api';
import * as files from './files';
import * as storage from './storage';
import { newChat, type Chat, type Head, type Settings } from './types';

/** The dialog that is open. */
export type Dialog =
  | { kind: 'key'; reason?: string }
  | { kind: 'settings' }
  | { kind: 'shortcuts' }
  | { kind: 'rename' }
  | { kind: 'confirm'; title: string; text: string; action: string; run: () => void };

/** The chats that are kept, the newest first. */
export const heads = signal<Head[]>([]);
/** What the server runs; `null` until it has said so. */
export const server = signal<ServerInfo | null>(null);
/** Why the server doesn't answer, in one sentence. */
export const serverProblem = signal('');
/** Why chats are not kept, in one sentence. */
export const storageProblem = signal('');
export const dialog = signal<Dialog | null>(null);
/** Whether the list of chats is open, where it isn't always. */
export const drawer = signal(false);
/** What a screen reader says next. */
export const announcement = signal('');
/** Answers that are being written, by chat. */
export const running = signal<ReadonlyMap<string, AbortController>>(new Map());

const DEFAULTS = 'herald.settings';
const MODEL = 'herald.model';

function remembered(name: string): string | null {
  try {
    return localStorage.getItem(name);
  } catch {
    return null;
  }
}

function remember(name: string, value: string): void {
  try {
    localStorage.setItem(name, value);
  } catch (error) {
    storageProblem.value = `This can’t be kept for the next time: ${storage.why(error)}.`;
  }
}

function defaultSettings(): Settings {
  try {
    return JSON.parse(remembered(DEFAULTS) ?? '{}');
  } catch {
    return {};
  }
}

/** Makes these the settings of new chats. */
export function keepAsDefault(settings: Settings): void {
  remember(DEFAULTS, JSON.stringify(settings));
}

// Chats that were opened since the page was; an answer may be on its way in any of them.
const loaded = new Map<string, Signal<Chat>>();

function adopt(chat: Chat): Signal<Chat> {
  const known = loaded.get(chat.id);
  if (known) return known;
  const made = signal(chat);
  loaded.set(chat.id, made);
  return made;
}

const shown = signal<Signal<Chat>>(adopt(newChat(defaultSettings(), remembered(MODEL))));

/** The chat that is open. */
export const chat = computed(() => shown.value.value);
/** Whether its answer is being written. */
export const isRunning = computed(() => running.value.has(chat.value.id));
/** The model that answers in it. */
export const model = computed(() => {
  const models = server.value?.models ?? [];
  const wanted = chat.value.model;
  return wanted !== null && models.includes(wanted) ? wanted : (models[0] ?? wanted ?? '');
});

export function peek(id: string): Chat | undefined {
  return loaded.get(id)?.peek();
}

/** Changes a chat, and keeps it. */
export function change(id: string, how: (chat: Chat) => Chat, keep = true): void {
  const held = loaded.get(id);
  if (!held) return;
  held.value = how(held.peek());
  if (keep) void save(id);
}

const tabs = 'BroadcastChannel' in window ? new BroadcastChannel('herald') : null;

/** Keeps a chat, once it has a turn. */
export async function save(id: string): Promise<void> {
  const chat = peek(id);
  if (!chat || (chat.turns.length === 0 && !heads.peek().some((head) => head.id === id))) return;
  const others = heads.peek().filter((head) => head.id !== id);
  heads.value = [storage.headOf(chat), ...others].sort((a, b) => b.updated - a.updated);
  try {
    await storage.save(chat);
    unsaved.delete(id);
    if (unsaved.size === 0) storageProblem.value = '';
    tabs?.postMessage(id);
  } catch (error) {
    unsaved.add(id);
    storageProblem.value =
      `This chat can’t be kept: ${storage.why(error)}. It stays here as long as the page is open; ` +
      'export it, or delete chats that you no longer need.';
  }
}

// Chats whose last state is only in memory.
const unsaved = new Set<string>();

/** Shows another version of the chat where another tab has changed it. */
async function seenElsewhere(id: string): Promise<void> {
  heads.value = await storage.heads().catch(() => heads.peek());
  const held = loaded.get(id);
  if (!held || running.peek().has(id)) return;
  const stored = await storage.load(id).catch(() => undefined);
  if (stored) held.value = stored;
}

export function startNew(): void {
  const current = chat.peek();
  if (current.turns.length > 0) {
    shown.value = adopt(newChat(defaultSettings(), model.peek() || current.model));
  }
  drawer.value = false;
  if (location.hash) history.pushState(null, '', location.pathname + location.search);
}

/** Opens a chat by its id; whether there is one. */
export async function openChat(id: string): Promise<boolean> {
  let held = loaded.get(id);
  if (!held) {
    try {
      const stored = await storage.load(id);
      if (stored) held = adopt(stored);
    } catch (error) {
      storageProblem.value = `The chat can’t be read: ${storage.why(error)}.`;
    }
  }
  if (!held) return false;
  shown.value = held;
  drawer.value = false;
  return true;
}

export async function removeChat(id: string): Promise<void> {
  running.peek().get(id)?.abort();
  try {
    await storage.remove(id);
  } catch (error) {
    storageProblem.value = `The chat can’t be deleted: ${storage.why(error)}.`;
    return;
  }
  unsaved.delete(id);
  if (unsaved.size === 0) storageProblem.value = '';
  heads.value = heads.peek().filter((head) => head.id !== id);
  tabs?.postMessage(id);
  const wasShown = chat.peek().id === id;
  if (wasShown) startNew();
  loaded.delete(id);
}

export function chooseModel(name: string): void {
  remember(MODEL, name);
  change(chat.peek().id, (chat) => ({ ...chat, model: name }));
}

/** Asks the server what it runs. */
export async function connect(): Promise<void> {
  try {
    server.value = await serverInfo();
    serverProblem.value = '';
    if (dialog.peek()?.kind === 'key') dialog.value = null;
  } catch (error) {
    failed(error);
  }
}

/** Says why a request failed, or asks for a key where that is why. */
export function failed(error: unknown): void {
  if (error instanceof ServerError && error.status === 401) {
    const reason = key.peek() ? error.message : '';
    dialog.value = reason ? { kind: 'key', reason } : { kind: 'key' };
  } else {
    serverProblem.value = error instanceof Error ? error.message : String(error);
  }
}

function fileName(title: string): string {
  const plain = title.replace(/[^\p{L}\p{N}]+/gu, '-').replace(/^-+|-+$/g, '');
  return `${plain.slice(0, 60) || 'chat'}.json`;
}

export function exportChat(): void {
  files.download(fileName(chat.peek().title), files.exported([chat.peek()]));
}

export async function exportAll(): Promise<void> {
  try {
    const stored = await storage.loadAll();
    // What could not be kept is in memory only.
    const newest = [...loaded.values()].map((held) => held.peek()).filter((chat) => chat.turns.length > 0);
    const all = new Map([...stored, ...newest].map((chat) => [chat.id, chat]));
    files.download('herald-chats.json', files.exported([...all.values()]));
  } catch (error) {
    storageProblem.value = `The chats can’t be read: ${storage.why(error)}.`;
  }
}

export async function importChats(file: File): Promise<void> {
  try {
    const chats = await files.imported(file);
    await storage.save(...chats);
    heads.value = await storage.heads();
    announcement.value = `${chats.length} chats imported.`;
    const first = chats[0];
    if (first) location.hash = first.id;
  } catch (error) {
    const reason = error instanceof DOMException ? `${storage.why(error)}.` : (error as Error).message;
    storageProblem.value = `The chats can’t be imported: ${reason}`;
  }
}

async function followHash(): Promise<void> {
  const id = location.hash.slice(1);
  if (!id) {
    if (chat.peek().turns.length > 0) startNew();
  } else if (id !== chat.peek().id && !(await openChat(id))) {
    history.replaceState(null, '', location.pathname + location.search);
  }
}

/** Begins: chats from the browser, models from the server. */
export async function start(): Promise<void> {
  void connect();
  window.addEventListener('hashchange', () => void followHash());
  window.addEventListener('popstate', () => void followHash());
  window.addEventListener('beforeunload', (event) => {
    if (unsaved.size > 0) event.preventDefault();
  });
  tabs?.addEventListener('message', ({ data }) => void seenElsewhere(String(data)));
  try {
    heads.value = await storage.heads();
    await followHash();
  } catch (error) {
    storageProblem.value = `Chats are not kept: ${storage.why(error)}.`;
  }
}
