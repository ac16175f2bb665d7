// Answers: asked for, written as they come, stopped, and asked for again.

import { complete, messages, sampling, ServerError, type Delta } from './api';
import * as state from './state';
import { changed, path, pathTo, replaced, withTurn, without } from './tree';
import { newId, type Attachment, type Call, type Chat, type Result, type Turn } from './types';

/** How often what has come is shown, in milliseconds. */
const FRAME = 50;
/** How often a growing answer is kept. */
const KEEP = 3000;
/** The longest answer that is read out whole, in characters. */
const READ_OUT = 600;

/** The first line of what was said. */
function titleOf(turn: Turn): string {
  const line = turn.text.trim().split('\n')[0]?.trim() || turn.attachments?.[0]?.name || 'New chat';
  return line.length > 60 ? `${line.slice(0, 59).trimEnd()}…` : line;
}

function turn(role: Turn['role'], parent: string | null, fields: Partial<Turn>): Turn {
  return { id: newId(), parent, role, created: Date.now(), text: '', ...fields };
}

function add(chat: Chat, made: Turn): Chat {
  const next = withTurn(chat, made);
  return next.named || made.parent !== null || made.role !== 'user' ? next : { ...next, title: titleOf(made) };
}

/** Where the next turn goes; an answer that never came makes way. */
function tail(id: string): string | null {
  const last = path(state.peek(id)!).at(-1);
  if (last?.role === 'assistant' && last.error && !last.text && !last.calls?.length) {
    state.change(id, (chat) => without(chat, last.id));
    return last.parent;
  }
  return last?.id ?? null;
}

/** Says this in the open chat. */
export function send(text: string, attachments: Attachment[]): void {
  const { id } = state.chat.peek();
  const files = attachments.length ? { attachments } : {};
  ask(id, turn('user', tail(id), { text, ...files }));
}

/** Says this in place of a turn; the former stays as another version. */
export function resend(former: Turn, text: string, attachments: Attachment[]): void {
  const files = attachments.length ? { attachments } : {};
  ask(state.chat.peek().id, turn('user', former.parent, { text, ...files }));
}

/** Gives what the calls of an answer gave. */
export function giveResults(answer: Turn, results: Result[]): void {
  ask(state.chat.peek().id, turn('tool', answer.id, { results }));
}

function ask(id: string, made: Turn): void {
  state.change(id, (chat) => add(chat, made));
  if (state.chat.peek().id === id && location.hash.slice(1) !== id) history.pushState(null, '', `#${id}`);
  void answer(id, made.id);
}

/** Asks for this answer again; what is there stays as another version, unless it is nothing. */
export function regenerate(former: Turn): void {
  const { id } = state.chat.peek();
  if (former.error && !former.text && !former.calls?.length) state.change(id, (chat) => without(chat, former.id));
  void answer(id, former.parent);
}

/** Whether an answer that is not whole can be gone on with: from its text, as thoughts and calls can't be handed back half done. */
export function canGoOn(turn: Turn): boolean {
  // One that was left in the middle, with the page, has no reason for its end.
  const isCut = turn.finish !== 'stop' || Boolean(turn.error);
  return isCut && turn.role === 'assistant' && turn.text !== '' && !turn.thoughts && !turn.calls;
}

/** Goes on with an answer that is not whole. */
export function goOn(former: Turn): void {
  void answer(state.chat.peek().id, former.parent, former);
}

/** Stops the answer of the open chat. The server ends its work when the request is gone. */
export function stop(): void {
  state.running.peek().get(state.chat.peek().id)?.abort();
}

/** An answer as it grows. */
class Growing {
  private thoughts = '';
  private calls: Call[] = [];
  private fields: Partial<Turn> = {};
  private readonly begun = performance.now();
  private first: number | undefined;
  private firstText: number | undefined;

  constructor(private text: string) {}

  take(delta: Delta): void {
    const now = performance.now();
    if (delta.thoughts) this.thoughts += delta.thoughts;
    if (delta.text) this.text += delta.text;
    for (const piece of delta.calls ?? []) {
      const call = (this.calls[piece.index] ??= { id: piece.id ?? newId(), name: '', arguments: '' });
      call.name += piece.name ?? '';
      call.arguments += piece.arguments ?? '';
    }
    if (delta.finish) this.fields.finish = delta.finish;
    const grows = Boolean(delta.text || delta.thoughts || delta.calls);
    if (grows) this.first ??= now;
    if (delta.text || delta.calls) this.firstText ??= now;
    const stats = { ...this.fields.stats, ...delta.usage };
    if (this.first !== undefined) {
      stats.wait = this.first - this.begun;
      if (grows) stats.took = now - this.first;
    }
    this.fields.stats = stats;
  }

  /** What the turn has now. */
  get turn(): Partial<Turn> {
    const fields: Partial<Turn> = { ...this.fields, text: this.text };
    if (this.thoughts) {
      fields.thoughts = this.thoughts;
      fields.thoughtFor = (this.firstText ?? performance.now()) - (this.first ?? this.begun);
    }
    const calls = this.calls.filter(Boolean);
    if (calls.length) fields.calls = calls.map((call) => ({ ...call }));
    return fields;
  }
}

function setRunning(id: string, control: AbortController | null): void {
  const next = new Map(state.running.peek());
  if (control) next.set(id, control);
  else next.delete(id);
  state.running.value = next;
}

/** What a screen reader says of an answer that has ended. */
function spoken({ text = '', calls, error, finish }: Partial<Turn>): string {
  if (error) return `No answer: ${error}`;
  const names = calls?.map((call) => call.name).join(', ');
  const called = names ? ` It calls ${names}.` : '';
  const how = finish === 'stopped' ? 'Stopped.' : 'Answered.';
  if (text.length <= READ_OUT) return `${how} ${text}${called}`;
  return `${how} The answer has ${text.trim().split(/\s+/).length} words.${called}`;
}

/** The request's body for an answer after these turns, or for the rest of the last one. */
function bodyOf(chat: Chat, turns: Turn[], model: string): Record<string, unknown> {
  const rest = turns.at(-1)?.role === 'assistant' ? { continue_final_message: true } : {};
  return { ...(model ? { model } : {}), messages: messages(chat.settings.system, turns), ...sampling(chat.settings), ...rest };
}

/** Has the model answer after a turn, or go on with a former answer to it. */
async function answer(id: string, parent: string | null, former?: Turn): Promise<void> {
  if (state.running.peek().has(id)) return;
  const control = new AbortController();
  const model = state.model.peek();
  const turns = pathTo(state.peek(id)!, former?.id ?? parent);
  const { finish: _finish, error: _error, ...begun } = former ?? turn('assistant', parent, {});
  const made: Turn = { ...begun, ...(model ? { model } : {}) };
  state.change(id, (chat) => (former ? replaced(chat, made) : withTurn(chat, made)), false);
  setRunning(id, control);
  state.announcement.value = 'The model is answering.';

  const growing = new Growing(made.text);
  let kept = performance.now();
  let pending: ReturnType<typeof setTimeout> | undefined;
  const show = (fields: Partial<Turn>, keep: boolean) => state.change(id, (chat) => changed(chat, made.id, fields), keep);
  const flush = () => {
    pending = undefined;
    const keep = performance.now() - kept > KEEP;
    if (keep) kept = performance.now();
    show(growing.turn, keep);
  };

  let end: Partial<Turn> = {};
  try {
    for await (const delta of complete(bodyOf(state.peek(id)!, turns, model), control.signal)) {
      growing.take(delta);
      pending ??= setTimeout(flush, FRAME);
    }
    state.serverProblem.value = '';
  } catch (error) {
    if (control.signal.aborted) end = { finish: 'stopped' };
    else end = { error: error instanceof Error ? error.message : String(error) };
    if (error instanceof ServerError && error.status === 401) state.failed(error);
  }
  clearTimeout(pending);
  const last = { ...growing.turn, ...end };
  setRunning(id, null);
  show(last, true);
  state.announcement.value = spoken(last);
}
