// What a chat is, in memory, in the browser's storage and in exported files.

/** A text file that goes with what the user says. */
export interface Attachment {
  name: string;
  text: string;
}

/** A tool's call by the model; its arguments are JSON, as far as they have come. */
export interface Call {
  id: string;
  name: string;
  arguments: string;
}

/** What a call gave. */
export interface Result {
  id: string;
  name: string;
  content: string;
}

/** Figures of an answer: tokens, and milliseconds. */
export interface Stats {
  prompt?: number;
  /** Prompt tokens that came from the prefix cache. */
  cached?: number;
  completion?: number;
  /** From the request to the first piece. */
  wait?: number;
  /** From the first piece to the last. */
  took?: number;
}

export type Role = 'user' | 'assistant' | 'tool';

/** One turn of a chat. Turns form a tree: those of one parent are versions of each other. */
export interface Turn {
  id: string;
  parent: string | null;
  role: Role;
  created: number;
  text: string;
  attachments?: Attachment[];
  thoughts?: string;
  /** How long the thoughts took, in milliseconds. */
  thoughtFor?: number;
  calls?: Call[];
  results?: Result[];
  model?: string;
  stats?: Stats;
  /** The API's `finish_reason`, or `stopped` where the user did. */
  finish?: string;
  /** Why the answer is not whole, in one sentence. */
  error?: string;
}

/** How a chat is answered; what is missing is as the server decides. */
export interface Settings {
  system?: string;
  temperature?: number;
  top_p?: number;
  top_k?: number;
  min_p?: number;
  max_tokens?: number;
  seed?: number;
  thinking?: boolean;
  /** Tools that the model may call: a JSON list in OpenAI's form. */
  tools?: string;
}

export interface Chat {
  id: string;
  title: string;
  /** Whether the user chose the title. */
  named: boolean;
  created: number;
  updated: number;
  model: string | null;
  settings: Settings;
  turns: Turn[];
  /** Of each parent (or `root`), the version that is shown; the last one where none is named. */
  shown: Record<string, string>;
}

/** What the list of chats shows of one. */
export interface Head {
  id: string;
  title: string;
  updated: number;
}

/** An id that no other chat or turn has. `crypto.randomUUID` is missing on plain HTTP beyond loopback. */
export function newId(): string {
  const bytes = crypto.getRandomValues(new Uint8Array(12));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join('');
}

export function newChat(settings: Settings, model: string | null): Chat {
  const now = Date.now();
  return {
    id: newId(),
    title: 'New chat',
    named: false,
    created: now,
    updated: now,
    model,
    settings: { ...settings },
    turns: [],
    shown: {},
  };
}
