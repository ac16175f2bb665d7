// A chat's turns as a tree, and the way through it that is shown.

import type { Chat, Turn } from './types';

const ROOT = 'root';

type Children = Map<string | null, Turn[]>;

/** The turns by their parents, oldest first: those of one parent are versions of each other. */
export function children(chat: Chat): Children {
  const map: Children = new Map();
  for (const turn of chat.turns) {
    const siblings = map.get(turn.parent);
    if (siblings) siblings.push(turn);
    else map.set(turn.parent, [turn]);
  }
  return map;
}

/** The shown turns, from the first to the last. */
export function path(chat: Chat, all: Children = children(chat)): Turn[] {
  const turns: Turn[] = [];
  let at: string | null = null;
  // A turn comes once, whatever an imported file says of parents.
  while (turns.length <= chat.turns.length) {
    const next: Turn[] = all.get(at) ?? [];
    const chosen: string | undefined = chat.shown[at ?? ROOT];
    const turn: Turn | undefined = next.find((candidate) => candidate.id === chosen) ?? next.at(-1);
    if (!turn) break;
    turns.push(turn);
    at = turn.id;
  }
  return turns;
}

/** The shown turns up to and with this one; none where it is `null`. */
export function pathTo(chat: Chat, id: string | null): Turn[] {
  const byId = new Map(chat.turns.map((turn) => [turn.id, turn]));
  const turns: Turn[] = [];
  for (let turn = id === null ? undefined : byId.get(id); turn && turns.length <= byId.size; ) {
    turns.unshift(turn);
    turn = turn.parent === null ? undefined : byId.get(turn.parent);
  }
  return turns;
}

/** The chat with this turn, which is shown. */
export function withTurn(chat: Chat, turn: Turn): Chat {
  const shown = { ...chat.shown, [turn.parent ?? ROOT]: turn.id };
  return { ...chat, turns: [...chat.turns, turn], shown, updated: turn.created };
}

/** The chat with another version shown: `step` further among those of the same parent. */
export function stepped(chat: Chat, turn: Turn, step: number): Chat {
  const all = children(chat).get(turn.parent) ?? [];
  const next = all[all.findIndex((other) => other.id === turn.id) + step];
  return next ? { ...chat, shown: { ...chat.shown, [turn.parent ?? ROOT]: next.id } } : chat;
}

/** The chat with this turn changed. */
export function changed(chat: Chat, id: string, change: Partial<Turn>): Chat {
  return { ...chat, turns: chat.turns.map((turn) => (turn.id === id ? { ...turn, ...change } : turn)) };
}

/** The chat with this turn in place of the one that had its id. */
export function replaced(chat: Chat, turn: Turn): Chat {
  return { ...chat, turns: chat.turns.map((other) => (other.id === turn.id ? turn : other)) };
}

/** The chat without this turn and all that follows it. */
export function without(chat: Chat, id: string): Chat {
  const gone = new Set([id]);
  // Parents come before what follows them.
  for (const turn of chat.turns) if (turn.parent !== null && gone.has(turn.parent)) gone.add(turn.id);
  const turns = chat.turns.filter((turn) => !gone.has(turn.id));
  const shown = Object.entries(chat.shown).filter(([parent, turn]) => !gone.has(parent) && !gone.has(turn));
  return { ...chat, turns, shown: Object.fromEntries(shown), updated: Date.now() };
}
