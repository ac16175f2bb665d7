// Pictures of the page for the documents, with a small model's own answers: `npm run screenshots`.

import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect, test as base } from '@playwright/test';
import { say } from './helpers';
import { serveModel, type Host } from './server';

const images = join(dirname(fileURLToPath(import.meta.url)), '../../../../docs/images');

const test = base.extend<object, { host: Host }>({
  host: [
    async ({}, use) => {
      const host = await serveModel('smollm2-135m-instruct', '--threads', '1');
      await use(host);
      await host.stop();
    },
    { scope: 'worker', timeout: 120_000 },
  ],
});

const CHATS = [
  ['What is photosynthesis?'],
  ['What is the capital of France?'],
  ['Write a Python function that adds two numbers.'],
];

const KINDS = [
  ['page', { viewport: { width: 1280, height: 800 }, colorScheme: 'light' }],
  ['page-dark', { viewport: { width: 1280, height: 800 }, colorScheme: 'dark' }],
  ['page-phone', { viewport: { width: 390, height: 780 }, colorScheme: 'light', isMobile: true, hasTouch: true }],
] as const;

for (const [name, how] of KINDS) {
  test.describe(name, () => {
    test.use(how);

    test(`is written to docs/images/${name}.png`, async ({ page, host }) => {
      await page.goto(host.url);
      await page.getByRole('button', { name: 'Settings of this chat' }).click();
      await page.getByLabel('Seed').fill('1');
      await page.getByLabel('Most tokens').fill('300');
      await page.getByRole('button', { name: 'Keep for new chats' }).click();
      await page.keyboard.press('Escape');
      for (const questions of CHATS) {
        await page.keyboard.press('Control+k');
        for (const question of questions) await say(page, question);
      }
      await expect(page.locator('.problem')).toHaveCount(0);
      await page.screenshot({ path: join(images, `${name}.png`), animations: 'disabled' });
    });
  });
}
