// Against the real server.

import { answers, done, figures, message, requesting, said, say, words } from './helpers';
import { expect, test, TINY_NAME } from './server';

test.beforeEach(async ({ open }) => open());

test('a message is sent, and the answer streams in with its figures', async ({ page, host }) => {
  const bodies = await requesting(page, { max_tokens: 24, ignore_eos: true });
  await expect(page.locator('.model')).toHaveText(TINY_NAME);
  await expect(page.locator('.welcome')).toContainText('Chats stay in this browser');
  await say(page, 'Once upon a time');
  await expect(words(page)).toHaveText('Once upon a time');
  await expect(figures(page)).toHaveText(/24 tokens · [\d,.]+ tokens\/s · first after .* · prompt of \d+, \d+ from the cache/);
  await expect(figures(page)).toContainText('cut at the limit of tokens');
  await expect(page.locator('.context')).toHaveText(/\d+ of [\d,]+ tokens in context/);
  await expect(page).toHaveTitle('Once upon a time – HERALD');
  // What isn't set is left to the server.
  const { messages, stream, stream_options, model, ...rest } = bodies[0];
  expect(messages).toEqual([{ role: 'user', content: 'Once upon a time' }]);
  expect([stream, model, Object.keys(rest).sort()]).toEqual([true, TINY_NAME, ['ignore_eos', 'max_tokens']]);
  expect(stream_options.include_usage).toBe(true);

  // What was said before comes from the prefix cache.
  await say(page, 'And then?');
  await expect(figures(page)).toHaveText(/ [1-9]\d* from the cache/);
  expect(bodies[1].messages.map(({ role }: { role: string }) => role)).toEqual(['user', 'assistant', 'user']);
  expect((await (await page.request.get(`${host.url}/health`)).json()).running).toBe(0);
});

test('stopping ends the work on the server, and keeps what had come', async ({ page, host }) => {
  await requesting(page, { ignore_eos: true, max_tokens: 100_000 });
  await message(page).fill('Write without end');
  await message(page).press('Enter');
  await expect(figures(page)).toHaveText(/\d+ tokens/);
  await page.getByRole('button', { name: 'Stop' }).click();
  await done(page);
  await expect(figures(page)).toContainText('stopped');
  const load = async () => (await (await page.request.get(`${host.url}/health`)).json()).running;
  await expect.poll(load).toBe(0);
  await expect(answers(page).locator('.problem')).toHaveCount(0);
});

test('an answer that was cut can be gone on with', async ({ page }) => {
  const bodies = await requesting(page, { max_tokens: 8, ignore_eos: true, temperature: 0 });
  await say(page, 'Once');
  const text = answers(page).locator('.markdown');
  const first = (await text.innerText()).trim();
  await answers(page).getByRole('button', { name: 'Go on' }).click();
  await expect.poll(async () => (await text.innerText()).length).toBeGreaterThan(first.length);
  await done(page);
  expect((await text.innerText()).startsWith(first)).toBe(true);
  expect(bodies[1]).toMatchObject({ continue_final_message: true, messages: [{ role: 'user' }, { role: 'assistant' }] });
  await expect(answers(page)).toHaveCount(1);
});

test('Escape stops, too', async ({ page }) => {
  await requesting(page, { ignore_eos: true, max_tokens: 100_000 });
  await message(page).fill('Write without end');
  await message(page).press('Enter');
  await expect(figures(page)).toHaveText(/\d+ tokens/);
  await page.keyboard.press('Escape');
  await expect(figures(page)).toContainText('stopped');
  await expect(message(page)).toBeFocused();
});

test('answering again keeps the former answer as a version', async ({ page }) => {
  await requesting(page, { max_tokens: 8, ignore_eos: true, temperature: 1 });
  await say(page, 'Once');
  const first = await answers(page).locator('.markdown').innerText();
  await answers(page).getByRole('button', { name: 'Answer again' }).click();
  await done(page);
  const versions = answers(page).getByRole('group', { name: 'Versions' });
  await expect(versions).toHaveText('2 of 2');
  await versions.getByRole('button', { name: 'Previous version' }).click();
  await expect(versions).toHaveText('1 of 2');
  await expect(answers(page).locator('.markdown')).toHaveText(first, { useInnerText: true });
});

test('an edited turn begins another version of the chat', async ({ page }) => {
  const bodies = await requesting(page, { max_tokens: 8, ignore_eos: true });
  await say(page, 'First');
  await say(page, 'Second');
  await said(page).first().getByRole('button', { name: 'Edit' }).click();
  const editor = page.getByRole('textbox', { name: 'Your message' });
  await expect(editor).toBeFocused();
  await editor.fill('Another first');
  await editor.press('Enter');
  await done(page);
  await expect(said(page)).toHaveCount(1);
  await expect(said(page).locator('p')).toHaveText('Another first');
  expect(bodies.at(-1).messages).toEqual([{ role: 'user', content: 'Another first' }]);
  await said(page).getByRole('button', { name: 'Previous version' }).click();
  await expect(said(page).locator('p')).toHaveText(['First', 'Second']);
  // Escape leaves it as it was.
  await said(page).last().getByRole('button', { name: 'Edit' }).click();
  await editor.fill('Never mind');
  await editor.press('Escape');
  await expect(said(page).locator('p')).toHaveText(['First', 'Second']);
});

test('chats are there after a reload, and can be renamed, found and deleted', async ({ page }) => {
  await requesting(page, { max_tokens: 8, ignore_eos: true });
  await say(page, 'The first chat');
  const text = await answers(page).locator('.markdown').innerText();
  await page.reload();
  await expect(words(page)).toHaveText('The first chat');
  await expect(answers(page).locator('.markdown')).toHaveText(text, { useInnerText: true });
  await expect(figures(page)).toContainText('8 tokens');

  await page.getByRole('button', { name: 'New chat' }).click();
  await expect(page.locator('.welcome')).toBeVisible();
  await say(page, 'The second chat');
  const chats = page.getByRole('navigation', { name: 'Chats' });
  await expect(chats.getByRole('link')).toHaveText(['The second chat', 'The first chat']);
  await page.goBack();
  await expect(page.locator('.welcome')).toBeVisible();
  await chats.getByRole('link', { name: 'The first chat' }).click();
  await expect(words(page)).toHaveText('The first chat');

  await page.getByRole('button', { name: 'More for this chat' }).click();
  await page.getByRole('button', { name: 'Rename' }).click();
  await page.getByRole('textbox', { name: 'Title' }).fill('Renamed');
  await page.keyboard.press('Enter');
  await expect(chats.getByRole('link', { name: 'Renamed' })).toBeVisible();
  await page.reload();
  await expect(page.getByRole('heading', { level: 1 })).toHaveText('Renamed');

  await page.getByRole('button', { name: 'More for this chat' }).click();
  await page.locator('#chat-menu').getByRole('button', { name: 'Delete' }).click();
  await page.getByRole('dialog').getByRole('button', { name: 'Delete' }).click();
  await expect(chats.getByRole('link')).toHaveText(['The second chat']);
  await page.reload();
  await expect(chats.getByRole('link')).toHaveText(['The second chat']);
});

test('a turn is deleted with what follows it', async ({ page }) => {
  await requesting(page, { max_tokens: 4, ignore_eos: true });
  await say(page, 'One');
  await say(page, 'Two');
  await said(page).last().getByRole('button', { name: 'Delete' }).click();
  await page.getByRole('dialog', { name: 'Delete from here on?' }).getByRole('button', { name: 'Delete' }).click();
  await expect(words(page)).toHaveText('One');
  await expect(answers(page)).toHaveCount(1);
});

test('an answer goes on while another chat is open', async ({ page }) => {
  await requesting(page, { ignore_eos: true, max_tokens: 100_000 });
  await message(page).fill('A long one');
  await message(page).press('Enter');
  await expect(figures(page)).toHaveText(/\d+ tokens/);
  await page.keyboard.press('Control+k');
  await expect(page.locator('.welcome')).toBeVisible();
  const link = page.getByRole('link', { name: 'A long one' });
  await expect(link.getByRole('img', { name: 'Answering:' })).toBeVisible();
  // Another chat is answered meanwhile.
  await page.unroute('**/v1/chat/completions');
  await requesting(page, { ignore_eos: true, max_tokens: 4 });
  await say(page, 'A short one');
  await expect(figures(page)).toContainText('4 tokens');
  await link.click();
  await page.getByRole('button', { name: 'Stop' }).click();
  await done(page);
  await expect(figures(page)).toContainText('stopped');
});

test('what the server refuses is told in its own words', async ({ page }) => {
  await requesting(page, { temperature: -3 });
  await say(page, 'Hello');
  await expect(answers(page).locator('.problem')).toContainText('temperature is -3');
  await page.unroute('**/v1/chat/completions');
  await requesting(page, { max_tokens: 4, ignore_eos: true });
  await answers(page).getByRole('button', { name: 'Try again' }).click();
  await done(page);
  await expect(answers(page).locator('.problem')).toHaveCount(0);
  await expect(figures(page)).toContainText('4 tokens');
  await expect(answers(page).getByRole('group', { name: 'Versions' })).toHaveCount(0);
});
