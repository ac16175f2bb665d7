// Lighthouse's marks on a desktop and on a phone, of the empty page and of one with a chat.

import { mkdtemp, rm } from 'node:fs/promises';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { chromium } from '@playwright/test';
import lighthouse, { desktopConfig } from 'lighthouse';
import { answering, say } from './helpers';
import { expect, test } from './server';

/** A port that nobody listens on. */
function freePort(): Promise<number> {
  return new Promise((resolve) => {
    const server = createServer().listen(0, '127.0.0.1', () => {
      const address = server.address();
      server.close(() => resolve(typeof address === 'object' && address ? address.port : 0));
    });
  });
}

const TEXT = '# Title\n\nText, a [link](https://example.com).\n\n```rust\nfn main() {}\n```\n\n| a | b |\n| - | - |\n| 1 | 2 |';

test('accessibility and practices are at 95 or more', async ({ host }, { project }) => {
  test.setTimeout(600_000);
  const port = await freePort();
  const profile = await mkdtemp(join(tmpdir(), 'herald-page-'));
  const { executablePath, args = [] } = project.use.launchOptions!;
  const context = await chromium.launchPersistentContext(profile, {
    ...(executablePath ? { executablePath } : {}),
    args: [...args, `--remote-debugging-port=${port}`],
  });
  try {
    const page = await context.newPage();
    await page.goto(host.url);
    await answering(page, { text: TEXT, thoughts: 'Hm.' });
    await say(page, 'Show everything');
    const filled = page.url();
    expect(filled).toContain('#');
    for (const [state, url] of Object.entries({ empty: `${host.url}/`, filled })) {
      for (const [device, config] of [['desktop', desktopConfig], ['phone', undefined]] as const) {
        const onlyCategories = ['accessibility', 'best-practices', 'performance'];
        const flags = { port, onlyCategories, disableStorageReset: true, logLevel: 'error' as const };
        const result = await lighthouse(url, flags, config);
        const { categories, audits } = result!.lhr;
        const mark = (name: string) => Math.round((categories[name]?.score ?? 0) * 100);
        const failed = Object.values(audits).filter((audit) => audit.score === 0).map((audit) => audit.id);
        console.log(
          `${state}, ${device}: accessibility ${mark('accessibility')}, best practices ${mark('best-practices')}, ` +
            `performance ${mark('performance')}; failed: ${failed.join(', ') || 'none'}`,
        );
        expect(mark('accessibility'), `${state}, ${device}`).toBeGreaterThanOrEqual(95);
        expect(mark('best-practices'), `${state}, ${device}`).toBeGreaterThanOrEqual(95);
      }
    }
  } finally {
    await context.close();
    await rm(profile, { recursive: true, force: true });
  }
});
