// `host serve` for tests, and a page that must keep to it.

import { spawn, type ChildProcess } from 'node:child_process';
import { existsSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { expect, test as base, type Page } from '@playwright/test';

const repository = join(dirname(fileURLToPath(import.meta.url)), '../../../..');

/** The program: the one that HOST names, or what cargo built last of the profiles. */
export function program(): string {
  const built = ['debug', 'release'].map((profile) => join(repository, 'target', profile, 'host'));
  const found = process.env.HOST ?? built.find((path) => existsSync(path));
  if (!found) throw new Error('target/debug/host is missing, where `cargo build -p herald-cli -p herald-cpu` builds it');
  return found;
}

/** A model of a few random weights: it answers nonsense, and at once. */
export const TINY = join(repository, 'host/tests/data/tiny/llama.f32.gguf');
export const TINY_NAME = 'llama.f32';

export interface Host {
  url: string;
  stop(): Promise<void>;
}

/** Starts a server of the tiny model. */
export const serve = (...more: string[]): Promise<Host> => serveModel(TINY, '--threads', '1', '--context', '100000', '--chat-template', 'chatml', ...more);

/** Starts a server, and waits for the address that it prints. */
export async function serveModel(model: string, ...more: string[]): Promise<Host> {
  const flags = ['serve', '--port', '0', '--model', model, ...more];
  const child: ChildProcess = spawn(program(), flags, { stdio: ['ignore', 'pipe', 'pipe'] });
  let said = '';
  child.stderr!.on('data', (data) => (said += data));
  const ended = new Promise<void>((resolve) => child.on('exit', () => resolve()));
  const url = await new Promise<string>((resolve, reject) => {
    createInterface({ input: child.stdout! }).once('line', resolve);
    void ended.then(() => reject(new Error(`host serve ended: ${said}`)));
  });
  const stop = async () => {
    child.kill('SIGINT');
    // A second one ends it at once.
    setTimeout(() => child.kill('SIGINT'), 500).unref();
    await ended;
  };
  return { url, stop };
}

/** What the page did that it mustn't: requests to others, scripts that failed, what its policy had to stop. */
function watch(page: Page, own: string): string[] {
  const wrong: string[] = [];
  page.on('request', (request) => {
    const url = request.url();
    if (!url.startsWith(`${own}/`) && !/^(?:data|blob):/.test(url)) wrong.push(`it asked for ${url}`);
  });
  page.on('pageerror', (error) => wrong.push(`it failed: ${error.message}`));
  page.on('console', (message) => {
    if (/content security policy|trusted/i.test(message.text())) wrong.push(message.text());
  });
  return wrong;
}

export const test = base.extend<{ open: (url?: string) => Promise<void> }, { host: Host }>({
  host: [
    async ({}, use) => {
      const host = await serve();
      await use(host);
      await host.stop();
    },
    { scope: 'worker' },
  ],
  open: async ({ page, host }, use) => {
    let wrong: string[] = [];
    await use(async (url = host.url) => {
      wrong = watch(page, url);
      await page.goto(`${url}/`);
    });
    expect(wrong).toEqual([]);
  },
});

export { expect };
