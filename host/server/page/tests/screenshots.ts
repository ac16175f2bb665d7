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
      const host = await serveModel('smollm2-135m-instruct');
      await use(host);
      await host.stop();
    },
    { scope: 'worker', timeout: 120_000 },
  ],
});

const QUESTIONS = [
  'What is the capital of France?',
  'Give me three tips for learning to cook.',
  'Write a Python function that tells whether a number is prime.',
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
      await page.getByLabel('Temperature').fill('0');
      await page.getByLabel('Most tokens').fill('400');
      await page.getByRole('button', { name: 'Keep for new chats' }).click();
      await page.keyboard.press('Escape');
      for (const question of QUESTIONS) {
        await page.keyboard.press('Control+k');
        await say(page, question);
      }
      await expect(page.locator('.problem')).toHaveCount(0);
      await page.screenshot({ path: join(images, `${name}.png`), animations: 'disabled' });
    });
  });
}
