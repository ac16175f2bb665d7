// Text files that go with a message, and exported chats.

import { newId, type Attachment, type Call, type Chat, type Result, type Settings, type Turn } from './types';

/** The largest file that goes with a message. */
export const MAX_FILE_BYTES = 1024 * 1024;
/** The most files that go with a message. */
export const MAX_FILES = 8;
/** The largest file of exported chats that is read back. */
const MAX_IMPORT_BYTES = 64 * 1024 * 1024;

/** Reads a text file. Throws one sentence where it isn't one. */
export async function readText(file: File): Promise<Attachment> {
  if (file.size > MAX_FILE_BYTES) {
    const size = (file.size / 1024 / 1024).toFixed(1);
    throw new Error(`${file.name} has ${size} MiB, where at most 1 MiB was expected.`);
  }
  let text: string;
  try {
    text = new TextDecoder('utf-8', { fatal: true }).decode(await file.arrayBuffer());
  } catch {
    throw new Error(`${file.name} is no text in UTF-8.`);
  }
  if (text.includes('\0')) throw new Error(`${file.name} is no text: it holds zero bytes.`);
  return { name: file.name, text };
}

/** Has the browser save a text as a file. */
export function download(name: string, text: string): void {
  const url = URL.createObjectURL(new Blob([text], { type: 'application/json' }));
  const link = document.createElement('a');
  link.href = url;
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}

const FORMAT = 'herald-chats';

export function exported(chats: Chat[]): string {
  return `${JSON.stringify({ format: FORMAT, version: 1, chats }, null, 2)}\n`;
}

type Fields = Record<string, unknown>;

const text = (value: unknown) => (typeof value === 'string' ? value : '');
const when = (value: unknown) => (typeof value === 'number' && Number.isFinite(value) ? value : Date.now());
const objects = (value: unknown): Fields[] =>
  Array.isArray(value) ? value.filter((one) => one !== null && typeof one === 'object') : [];

/** The turn that a file has, with what a turn has and nothing else; none where it has no role. */
function turnOf(value: Fields): Turn | undefined {
  const { role } = value;
  if (role !== 'user' && role !== 'assistant' && role !== 'tool') return undefined;
  const parent = typeof value.parent === 'string' ? value.parent : null;
  const turn: Turn = { id: text(value.id), parent, role, created: when(value.created), text: text(value.text) };
  const list = <T extends object>(field: unknown, names: (keyof T & string)[]): T[] =>
    objects(field).map((one) => Object.fromEntries(names.map((name) => [name, text(one[name])])) as T);
  if (value.attachments) turn.attachments = list<Attachment>(value.attachments, ['name', 'text']);
  if (value.calls) turn.calls = list<Call>(value.calls, ['id', 'name', 'arguments']);
  if (value.results) turn.results = list<Result>(value.results, ['id', 'name', 'content']);
  for (const name of ['thoughts', 'model', 'finish', 'error'] as const) {
    if (typeof value[name] === 'string') turn[name] = value[name];
  }
  if (typeof value.thoughtFor === 'number') turn.thoughtFor = value.thoughtFor;
  if (value.stats && typeof value.stats === 'object') {
    const numbers = Object.entries(value.stats).filter(([, number]) => typeof number === 'number');
    turn.stats = Object.fromEntries(numbers);
  }
  return turn;
}

function settingsOf(value: unknown): Settings {
  const given = (value ?? {}) as Fields;
  const settings: Settings = {};
  for (const name of ['system', 'tools'] as const) if (typeof given[name] === 'string') settings[name] = given[name];
  for (const name of ['temperature', 'top_p', 'top_k', 'min_p', 'max_tokens', 'seed'] as const) {
    if (typeof given[name] === 'number') settings[name] = given[name];
  }
  if (typeof given.thinking === 'boolean') settings.thinking = given.thinking;
  return settings;
}

/** Reads exported chats, each with a new id. Throws one sentence where the file isn't one. */
export async function imported(file: File): Promise<Chat[]> {
  if (file.size > MAX_IMPORT_BYTES) throw new Error(`${file.name} is larger than 64 MiB.`);
  let value: Fields;
  try {
    value = JSON.parse(await file.text());
  } catch {
    throw new Error(`${file.name} is not JSON.`);
  }
  if (value?.format !== FORMAT || value.version !== 1) {
    throw new Error(`${file.name} holds no chats that this page exported.`);
  }
  return objects(value.chats).map((chat) => {
    const shown = Object.entries(chat.shown ?? {}).filter(([, id]) => typeof id === 'string');
    const seen = new Set<string>();
    // Each turn comes after its parent, so there are no circles.
    const turns = objects(chat.turns)
      .map(turnOf)
      .filter((turn): turn is Turn => {
        if (!turn?.id || seen.has(turn.id) || (turn.parent !== null && !seen.has(turn.parent))) return false;
        seen.add(turn.id);
        return true;
      });
    return {
      id: newId(),
      title: text(chat.title) || 'Imported chat',
      named: chat.named === true,
      created: when(chat.created),
      updated: when(chat.updated),
      model: typeof chat.model === 'string' ? chat.model : null,
      settings: settingsOf(chat.settings),
      turns,
      shown: Object.fromEntries(shown) as Record<string, string>,
    };
  });
}
