// Rules of accessibility that a program can check (axe-core), in every state and both themes.

import { createRequire } from 'node:module';
import { readFile } from 'node:fs/promises';
import type { Page } from '@playwright/test';
import type { AxeResults } from 'axe-core';
import { answering, answers, refusing, say } from './helpers';
import { expect, test } from './server';

const script = await readFile(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');

async function check(page: Page, state: string): Promise<void> {
  // Not as a script of the page, which its policy would refuse.
  await page.evaluate(script);
  const results: AxeResults = await page.evaluate(() => (window as any).axe.run());
  const found = results.violations.map(({ id, nodes }) => `${state}: ${id}: ${nodes.map((node) => node.html).join(' ')}`);
  expect(found).toEqual([]);
}

const RICH = {
  thoughts: 'First I *think*.',
  text: '# Title\n\nText with `code`, a [link](https://example.com).\n\n```python\n# note\nclass A:\n    x = "s" + str(1)\n```\n\n```diff\n- a\n+ b\n```\n\n| a | b |\n| - | - |\n| 1 | 2 |\n\n> quoted\n\n- [ ] open',
  calls: [{ name: 'weather', arguments: '{"city": "Lyon"}' }],
};

for (const colorScheme of ['light', 'dark'] as const) {
  test.describe(`in ${colorScheme}`, () => {
    test.use({ colorScheme });

    test('no rule is broken', async ({ page, open }) => {
      await open();
      await check(page, 'empty');
      await answering(page, RICH, refusing(500, 'a plugin failed'));
      await say(page, 'Show everything');
      await answers(page).locator('.thoughts summary').click();
      await page.getByRole('button', { name: 'Answer again' }).click();
      await expect(answers(page).locator('.problem')).toBeVisible();
      await check(page, 'error');
      await page.getByRole('button', { name: 'Previous version' }).click();
      await answers(page).locator('.thoughts summary').click();
      await check(page, 'chat');
      await page.getByRole('button', { name: 'Edit' }).click();
      await check(page, 'edit');
      await page.keyboard.press('Escape');
      await page.getByRole('button', { name: 'Settings of this chat' }).click();
      await check(page, 'settings');
      await page.keyboard.press('Escape');
      await page.getByRole('button', { name: 'More', exact: true }).click();
      await check(page, 'menu');
      await page.getByRole('button', { name: 'Keyboard shortcuts' }).click();
      await check(page, 'shortcuts');
      await page.keyboard.press('Escape');
      await page.getByRole('button', { name: 'More', exact: true }).click();
      await page.getByRole('button', { name: 'Give an API key' }).click();
      await check(page, 'key');
    });

    test('no rule is broken on a phone', async ({ page, open }) => {
      await page.setViewportSize({ width: 375, height: 720 });
      await open();
      await answering(page, RICH);
      await say(page, 'Show everything');
      await check(page, 'phone');
      await page.getByRole('button', { name: 'Chats', exact: true }).click();
      await check(page, 'drawer');
    });
  });
}
