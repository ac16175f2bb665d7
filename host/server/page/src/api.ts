// The server's API, as far as the page uses it. All addresses are relative to the page, so no request leaves its server.

import { signal } from '@preact/signals';
import type { Call, Result, Settings, Stats, Turn } from './types';

/** Why the server gives no answer. */
export class ServerError extends Error {
  constructor(
    message: string,
    /** 0 where there was no answer at all. */
    readonly status: number,
  ) {
    super(message);
  }
}

const KEY = 'herald.key';

function stored(): string {
  try {
    return sessionStorage.getItem(KEY) ?? localStorage.getItem(KEY) ?? '';
  } catch {
    return '';
  }
}

/** The API key that requests carry; empty where none is known. */
export const key = signal(stored());

/** Uses this key from now on, and keeps it: until the tab is closed, or on this device. */
export function useKey(value: string, remember: boolean): void {
  key.value = value;
  try {
    sessionStorage.removeItem(KEY);
    localStorage.removeItem(KEY);
    if (value) (remember ? localStorage : sessionStorage).setItem(KEY, value);
  } catch {
    // It is kept as long as the page is open.
  }
}

/** The sentence of an error's body, in any of the API's forms. */
function sentence(body: string, status: number): string {
  try {
    const { error } = JSON.parse(body);
    const message = typeof error === 'string' ? error : error?.message;
    if (typeof message === 'string' && message) return message;
  } catch {
    // Something between here and the server wrote it.
  }
  return `The server answered with status ${status} and no reason.`;
}

async function request(path: string, init: RequestInit = {}): Promise<Response> {
  const headers = new Headers(init.headers);
  if (key.value) headers.set('Authorization', `Bearer ${key.value}`);
  let response: Response;
  try {
    response = await fetch(path, { ...init, headers, credentials: 'omit', cache: 'no-store' });
  } catch (error) {
    if (init.signal?.aborted) throw error;
    throw new ServerError('The server can’t be reached: it may have been stopped, or the network is down.', 0);
  }
  if (!response.ok) throw new ServerError(sentence(await response.text(), response.status), response.status);
  return response;
}

/** What the server runs. */
export interface ServerInfo {
  models: string[];
  /** The context's size in tokens, where it is told. */
  context: number | null;
  /** How tokens are chosen where a request doesn't say. */
  defaults: Record<string, unknown>;
}

export async function serverInfo(): Promise<ServerInfo> {
  const list = await (await request('v1/models')).json();
  const models: string[] = (Array.isArray(list?.data) ? list.data : [])
    .map((model: { id?: unknown }) => model?.id)
    .filter((id: unknown) => typeof id === 'string');
  // Without it the page works, and shows less.
  const props = await request('props').then(
    (response) => response.json(),
    () => null,
  );
  const settings = props?.default_generation_settings;
  const context = typeof settings?.n_ctx === 'number' ? settings.n_ctx : null;
  return { models, context, defaults: settings?.params ?? {} };
}

/** The text of a user's turn with its files, each in a fenced block under its name. */
export function contentOf(turn: Turn): string {
  const blocks = (turn.attachments ?? []).map(({ name, text }) => {
    const longest = Math.max(2, ...Array.from(text.matchAll(/`+/g), (run) => run[0].length));
    const fence = '`'.repeat(longest + 1);
    const kind = /\.([A-Za-z0-9]{1,10})$/.exec(name)?.[1] ?? '';
    return `${name}:\n${fence}${kind}\n${text}${text.endsWith('\n') ? '' : '\n'}${fence}`;
  });
  return [...blocks, turn.text].filter(Boolean).join('\n\n');
}

interface Message {
  role: string;
  content: string;
  [field: string]: unknown;
}

function messageOf(turn: Turn): Message[] {
  if (turn.role === 'user') return [{ role: 'user', content: contentOf(turn) }];
  if (turn.role === 'tool') {
    const one = ({ id, name, content }: Result) => ({ role: 'tool', tool_call_id: id, name, content });
    return (turn.results ?? []).map(one);
  }
  const calls = turn.calls?.map(({ id, name, arguments: text }: Call) => ({
    id,
    type: 'function',
    function: { name, arguments: text || '{}' },
  }));
  if (!turn.text && !calls?.length) return [];
  // Models that call tools while they think go on from their thoughts.
  const thoughts = calls?.length && turn.thoughts ? { reasoning_content: turn.thoughts } : {};
  return [{ role: 'assistant', content: turn.text, ...(calls?.length ? { tool_calls: calls } : {}), ...thoughts }];
}

/** The messages of these turns. What has no answer yet is said together: templates want roles to alternate. */
export function messages(system: string | undefined, turns: Turn[]): Message[] {
  const list: Message[] = system?.trim() ? [{ role: 'system', content: system }] : [];
  for (const message of turns.flatMap(messageOf)) {
    const last = list.at(-1);
    if (last?.role === 'user' && message.role === 'user') last.content += `\n\n${message.content}`;
    else list.push(message);
  }
  return list;
}

/** The fields of a request that the settings give; what is empty is left to the server. */
export function sampling(settings: Settings): Record<string, unknown> {
  const { system: _system, thinking, tools, ...numbers } = settings;
  const fields: Record<string, unknown> = { ...numbers };
  if (thinking === false) fields.reasoning_effort = 'none';
  if (thinking === true) fields.chat_template_kwargs = { enable_thinking: true, thinking: true };
  if (tools?.trim()) fields.tools = JSON.parse(tools);
  return fields;
}

/** A piece of an answer, as it comes. */
export interface Delta {
  text?: string;
  thoughts?: string;
  calls?: { index: number; id?: string; name?: string; arguments?: string }[];
  finish?: string;
  usage?: Stats;
}

/** The longest event that is taken, in characters. */
const LONGEST_EVENT = 16 * 1024 * 1024;

/** The data of a stream's events. */
async function* events(body: ReadableStream<Uint8Array>): AsyncGenerator<string> {
  const reader = body.pipeThrough(new TextDecoderStream() as ReadableWritablePair<string, Uint8Array>).getReader();
  let buffer = '';
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      buffer += value;
      const lines = buffer.split('\n');
      buffer = lines.pop() ?? '';
      if (buffer.length > LONGEST_EVENT) throw new ServerError('The answer has an event of over 16 MiB.', 0);
      for (const line of lines) if (line.startsWith('data:')) yield line.slice(5).trim();
    }
  } finally {
    void reader.cancel().catch(() => {});
  }
}

function number(value: unknown): number | undefined {
  return typeof value === 'number' ? value : undefined;
}

function deltaOf(event: any): Delta {
  const choice = event.choices?.[0];
  const delta: Delta = {};
  const { content, reasoning_content: thoughts, tool_calls: calls } = choice?.delta ?? {};
  if (typeof content === 'string') delta.text = content;
  if (typeof thoughts === 'string') delta.thoughts = thoughts;
  if (Array.isArray(calls)) {
    delta.calls = calls.map((call) => ({
      index: number(call.index) ?? 0,
      id: call.id,
      name: call.function?.name,
      arguments: call.function?.arguments,
    }));
  }
  if (typeof choice?.finish_reason === 'string') delta.finish = choice.finish_reason;
  if (event.usage) {
    const usage = {
      prompt: number(event.usage.prompt_tokens),
      completion: number(event.usage.completion_tokens),
      cached: number(event.usage.prompt_tokens_details?.cached_tokens),
    };
    delta.usage = Object.fromEntries(Object.entries(usage).filter(([, value]) => value !== undefined));
  }
  return delta;
}

/** Asks for an answer and gives its pieces. Ends early, with the request, where `stop` aborts. */
export async function* complete(body: Record<string, unknown>, stop: AbortSignal): AsyncGenerator<Delta> {
  const response = await request('v1/chat/completions', {
    method: 'POST',
    headers: { 'Content-Type': 'application/json' },
    body: JSON.stringify({
      ...body,
      stream: true,
      stream_options: { include_usage: true, continuous_usage_stats: true },
    }),
    signal: stop,
  });
  if (!response.body) throw new ServerError('The answer has no body, where a stream was expected.', 0);
  try {
    for await (const data of events(response.body)) {
      if (data === '[DONE]') return;
      if (!data) continue;
      let event;
      try {
        event = JSON.parse(data);
      } catch {
        throw new ServerError('The answer has an event that is not JSON.', 0);
      }
      if (event?.error) throw new ServerError(sentence(data, 500), 500);
      yield deltaOf(event ?? {});
    }
  } catch (error) {
    if (stop.aborted || error instanceof ServerError) throw error;
    throw new ServerError('The answer broke off: the connection to the server was lost.', 0);
  }
  throw new ServerError('The answer broke off: the connection was closed before its end.', 0);
}
