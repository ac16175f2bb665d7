// Chats in the browser's own database (IndexedDB). Nothing is kept on the server.

import type { Chat, Head } from './types';

const CHATS = 'chats';
const HEADS = 'heads';

let opened: Promise<IDBDatabase> | undefined;

function open(): Promise<IDBDatabase> {
  opened ??= new Promise<IDBDatabase>((resolve, reject) => {
    const request = indexedDB.open('herald', 1);
    request.onupgradeneeded = () => {
      request.result.createObjectStore(CHATS, { keyPath: 'id' });
      request.result.createObjectStore(HEADS, { keyPath: 'id' });
    };
    request.onsuccess = () => {
      // A newer page in another tab may need it.
      request.result.onversionchange = () => request.result.close();
      request.result.onclose = () => (opened = undefined);
      resolve(request.result);
    };
    request.onerror = () => reject(request.error);
    request.onblocked = () => reject(new Error('another tab has it open'));
  });
  opened.catch(() => (opened = undefined));
  return opened;
}

function result<T>(request: IDBRequest<T>): Promise<T> {
  return new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
}

/** Runs `work` in one transaction that writes, and waits until it is done. */
async function write(work: (chats: IDBObjectStore, heads: IDBObjectStore) => void): Promise<void> {
  const transaction = (await open()).transaction([CHATS, HEADS], 'readwrite');
  const done = new Promise<void>((resolve, reject) => {
    transaction.oncomplete = () => resolve();
    transaction.onabort = () => reject(transaction.error ?? new Error('it was aborted'));
    transaction.onerror = () => reject(transaction.error);
  });
  work(transaction.objectStore(CHATS), transaction.objectStore(HEADS));
  return done;
}

export function headOf({ id, title, updated }: Chat): Head {
  return { id, title, updated };
}

/** The heads of all chats, the newest first. */
export async function heads(): Promise<Head[]> {
  const transaction = (await open()).transaction(HEADS);
  const all: Head[] = await result(transaction.objectStore(HEADS).getAll());
  return all.sort((a, b) => b.updated - a.updated);
}

export async function load(id: string): Promise<Chat | undefined> {
  return result((await open()).transaction(CHATS).objectStore(CHATS).get(id));
}

export async function loadAll(): Promise<Chat[]> {
  return result((await open()).transaction(CHATS).objectStore(CHATS).getAll());
}

export function save(...all: Chat[]): Promise<void> {
  return write((chats, heads) => {
    for (const chat of all) {
      chats.put(chat);
      heads.put(headOf(chat));
    }
  });
}

export function remove(id: string): Promise<void> {
  return write((chats, heads) => {
    chats.delete(id);
    heads.delete(id);
  });
}

/** Why something can't be kept, in one sentence. */
export function why(error: unknown): string {
  const name = error instanceof DOMException ? error.name : '';
  if (name === 'QuotaExceededError') return 'the browser’s storage for this page is full';
  if (name === 'SecurityError' || name === 'InvalidStateError') return 'the browser allows this page no storage';
  return error instanceof Error && error.message ? error.message : 'the browser’s storage failed';
}
