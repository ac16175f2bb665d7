// What the page does by itself; answers are made up.

import { readFile } from 'node:fs/promises';
import { answering, answers, done, message, refusing, said, say, words } from './helpers';
import { expect, test } from './server';

test.beforeEach(async ({ open }) => open());

test('thoughts are folded, and told apart', async ({ page }) => {
  await answering(page, { thoughts: 'Let me *think*.', text: 'Forty-two.' });
  await say(page, 'What is it?');
  const thoughts = answers(page).locator('.thoughts');
  await expect(thoughts.locator('summary')).toHaveText(/Thought for \d/);
  await expect(thoughts.locator('.markdown')).toBeHidden();
  await thoughts.locator('summary').click();
  await expect(thoughts.locator('em')).toHaveText('think');
  await expect(answers(page).locator('> .markdown')).toHaveText('Forty-two.');
});

test('calls of tools are shown, and take results', async ({ page }) => {
  const call = { name: 'weather', arguments: '{"city": "Lyon"}' };
  const bodies = await answering(page, { calls: [call], finish: 'tool_calls' }, { text: 'It is sunny in Lyon.' });
  await page.getByRole('button', { name: 'Settings of this chat' }).click();
  const tools = page.getByLabel('Tools');
  await tools.fill('[{"type": "function"}]');
  await expect(page.locator('#about-tools')).toContainText('A JSON list of');
  await tools.fill('[{"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}]');
  await page.keyboard.press('Escape');
  await say(page, 'What is the weather in Lyon?');
  expect(bodies[0].tools[0].function.name).toBe('weather');
  await expect(answers(page).locator('.call')).toContainText('weather');
  await expect(answers(page).locator('.call pre')).toHaveText('{\n  "city": "Lyon"\n}');
  await page.getByLabel('What weather gave').fill('sunny');
  await page.getByRole('button', { name: 'Give the result' }).click();
  await done(page);
  await expect(answers(page).last()).toContainText('It is sunny in Lyon.');
  const [, assistant, tool] = bodies[1].messages;
  expect(assistant.tool_calls[0]).toEqual({
    id: 'call_0',
    type: 'function',
    function: { name: 'weather', arguments: '{"city": "Lyon"}' },
  });
  expect(tool).toEqual({ role: 'tool', tool_call_id: 'call_0', name: 'weather', content: 'sunny' });
});

test('system text and sampling go with each request, and stay with the chat', async ({ page }) => {
  const bodies = await answering(page, { text: 'Yes.' });
  const settings = page.getByRole('button', { name: 'Settings of this chat' });
  await settings.click();
  await page.getByLabel('System text').fill('Answer in one word.');
  const numbers = { Temperature: '0.5', 'Top-p': '0.9', 'Top-k': '40', 'Min-p': '0.05', 'Most tokens': '100', Seed: '7' };
  for (const [label, value] of Object.entries(numbers)) await page.getByLabel(label).fill(value);
  await page.getByLabel('Thinking').selectOption('Off');
  await page.keyboard.press('Escape');
  await expect(settings).toBeFocused();
  await say(page, 'Is it?');
  expect(bodies[0].messages[0]).toEqual({ role: 'system', content: 'Answer in one word.' });
  const wanted = { temperature: 0.5, top_p: 0.9, top_k: 40, min_p: 0.05, max_tokens: 100, seed: 7, reasoning_effort: 'none' };
  expect(bodies[0]).toMatchObject(wanted);

  await page.reload();
  await settings.click();
  await expect(page.getByLabel('Temperature')).toHaveValue('0.5');
  await page.getByRole('button', { name: 'Keep for new chats' }).click();
  await page.keyboard.press('Escape');
  await page.keyboard.press('Control+k');
  await say(page, 'And a new one?');
  expect(bodies[1]).toMatchObject(wanted);
  await settings.click();
  await page.getByRole('button', { name: 'Clear all' }).click();
  await page.keyboard.press('Escape');
  await say(page, 'And now?');
  expect(Object.keys(bodies[2]).sort()).toEqual(['messages', 'model', 'stream', 'stream_options']);
});

test('a model is chosen where there are several', async ({ page }) => {
  await page.route('**/v1/models', (route) => route.fulfill({ json: { data: [{ id: 'small' }, { id: 'large' }] } }));
  const bodies = await answering(page, { text: 'Hello.' });
  await page.reload();
  const model = page.getByRole('combobox', { name: 'Model' });
  await expect(model).toHaveValue('small');
  await model.selectOption('large');
  await say(page, 'Hello');
  expect(bodies[0].model).toBe('large');
  await expect(answers(page)).toHaveAttribute('aria-label', 'Answer of large');
  await page.reload();
  await expect(model).toHaveValue('large');
});

test('text files go with a message, and others are told why not', async ({ page }) => {
  const bodies = await answering(page, { text: 'Read.' });
  await page.getByRole('button', { name: 'Attach a text file' }).waitFor();
  const input = page.getByLabel('Text files');
  const file = (name: string, content: string | Buffer) => ({ name, mimeType: '', buffer: Buffer.from(content) });
  await input.setInputFiles([file('picture.png', Buffer.from([0x89, 0x50, 0xff, 0x00]))]);
  await expect(page.locator('.composer [role=alert]')).toHaveText('picture.png is no text in UTF-8.');
  await input.setInputFiles([file('big.txt', 'a'.repeat(1024 * 1024 + 1))]);
  await expect(page.locator('.composer [role=alert]')).toContainText('big.txt has 1.0 MiB, where at most 1 MiB was expected');
  await input.setInputFiles([file('notes.md', 'Some ```fenced``` text\n'), file('b.py', 'print(1)')]);
  const chips = page.getByRole('list', { name: 'Attached files' }).getByRole('listitem');
  await expect(chips).toHaveCount(2);
  await page.getByRole('button', { name: 'Remove b.py' }).click();
  await expect(chips).toHaveText(['notes.md23 B']);
  await say(page, 'Read this');
  await expect(chips).toHaveCount(0);
  expect(bodies[0].messages[0].content).toBe('notes.md:\n````md\nSome ```fenced``` text\n````\n\nRead this');
  await said(page).locator('.attached summary').click();
  await expect(said(page).locator('.attached pre')).toHaveText('Some ```fenced``` text');
});

test('a failed answer says why, and is tried again in its place', async ({ page }) => {
  const bodies = await answering(page, refusing(503, 'the server is shutting down'), (route) => route.abort(), {
    text: 'Here.',
  });
  await say(page, 'Are you there?');
  await expect(answers(page).getByRole('alert')).toContainText('the server is shutting down');
  await answers(page).getByRole('button', { name: 'Try again' }).click();
  await expect(answers(page).getByRole('alert')).toContainText('The server can’t be reached');
  await answers(page).getByRole('button', { name: 'Try again' }).click();
  await expect(answers(page)).toContainText('Here.');
  await expect(answers(page)).toHaveCount(1);
  expect(bodies).toHaveLength(3);
});

test('an answer that breaks off keeps what had come', async ({ page }) => {
  const body = 'data: {"choices": [{"index": 0, "delta": {"content": "Half an"}}]}\n\n';
  await answering(page, (route) => route.fulfill({ contentType: 'text/event-stream', body }));
  await say(page, 'Go');
  await expect(answers(page)).toContainText('Half an');
  await expect(answers(page).getByRole('alert')).toContainText('The answer broke off');
});

test('a server that does not answer is told, and asked again', async ({ page }) => {
  await page.route('**/v1/models', (route) => route.abort());
  await page.reload();
  await expect(page.getByRole('alert').first()).toContainText('The server can’t be reached');
  await page.unroute('**/v1/models');
  await page.getByRole('button', { name: 'Try again' }).click();
  await expect(page.locator('.banner')).toHaveCount(0);
  await expect(page.locator('.model')).not.toBeEmpty();
});

test('a full storage is told, and the chat goes on', async ({ page }) => {
  await answering(page, { text: 'Still here.' });
  await page.evaluate(() => {
    IDBObjectStore.prototype.put = () => {
      throw new DOMException('no room', 'QuotaExceededError');
    };
  });
  await say(page, 'Keep this');
  await expect(page.locator('.banner')).toContainText('the browser’s storage for this page is full');
  await say(page, 'And this');
  await expect(words(page)).toHaveText(['Keep this', 'And this']);
  const saved = page.waitForEvent('download');
  await page.getByRole('button', { name: 'Export this chat' }).click();
  const chats = JSON.parse(await readFile(await (await saved).path(), 'utf8')).chats;
  expect(chats[0].turns).toHaveLength(4);
});

test('chats are exported, and read back', async ({ page }) => {
  await answering(page, { text: 'An **answer**.', thoughts: 'Hm.' });
  await say(page, 'A question');
  const saved = page.waitForEvent('download');
  await page.getByRole('button', { name: 'More', exact: true }).click();
  await page.getByRole('button', { name: 'Export all chats' }).click();
  const path = await (await saved).path();
  await page.getByLabel('File of exported chats').setInputFiles(path);
  const chats = page.getByRole('navigation', { name: 'Chats' }).getByRole('link');
  await expect(chats).toHaveText(['A question', 'A question']);
  await expect(answers(page).locator('strong')).toHaveText('answer');
  await page.getByLabel('File of exported chats').setInputFiles({ name: 'x.json', mimeType: '', buffer: Buffer.from('{}') });
  await expect(page.locator('.banner')).toContainText('x.json holds no chats that this page exported');
});

test('the theme is the system’s, or the chosen one', async ({ page }) => {
  const ground = () => page.evaluate(() => getComputedStyle(document.body).backgroundColor);
  await page.emulateMedia({ colorScheme: 'light' });
  const light = await ground();
  await page.emulateMedia({ colorScheme: 'dark' });
  const dark = await ground();
  expect(dark).not.toBe(light);
  await page.getByRole('radio', { name: 'Light' }).check({ force: true });
  expect(await ground()).toBe(light);
  await page.reload();
  expect(await ground()).toBe(light);
  await expect(page.getByRole('radio', { name: 'Light' })).toBeChecked();
  await page.getByRole('radio', { name: 'As the system' }).check({ force: true });
  expect(await ground()).toBe(dark);
});

test('all of it works by the keyboard alone', async ({ page }) => {
  const bodies = await answering(page, { text: 'An answer.' });
  await expect(message(page)).toBeFocused();
  await page.keyboard.type('First line');
  await page.keyboard.press('Shift+Enter');
  await page.keyboard.type('second line');
  await page.keyboard.press('Enter');
  await done(page);
  expect(bodies[0].messages[0].content).toBe('First line\nsecond line');
  await expect(message(page)).toBeFocused();
  // It is read out once, whole.
  await expect(page.getByRole('status')).toHaveText('Answered. An answer.');

  await page.keyboard.press('ArrowUp');
  await expect(page.getByRole('textbox', { name: 'Your message' })).toBeFocused();
  await page.keyboard.press('Escape');
  await expect(message(page)).toBeFocused();

  await page.keyboard.press('Control+/');
  await expect(page.getByRole('dialog', { name: 'Keyboard shortcuts' })).toBeVisible();
  await page.keyboard.press('Escape');
  await expect(page.getByRole('dialog')).toHaveCount(0);
  await expect(message(page)).toBeFocused();

  // Backwards to the answer's buttons, and one is pressed.
  for (let step = 0; step < 12; step += 1) {
    await page.keyboard.press('Shift+Tab');
    const name = await page.evaluate(() => document.activeElement?.getAttribute('aria-label'));
    if (name === 'Answer again') break;
  }
  await page.keyboard.press('Enter');
  await done(page);
  expect(bodies).toHaveLength(2);

  await page.keyboard.press('Control+k');
  await expect(page.locator('.welcome')).toBeVisible();
  await expect(message(page)).toBeFocused();
  await page.keyboard.press('Home');
  await page.locator('.skip').focus();
  await page.keyboard.press('Enter');
  await expect(message(page)).toBeFocused();
});

test('a long answer is followed, unless the reader has left its end', async ({ page }) => {
  const text = Array.from({ length: 80 }, (_, line) => `Paragraph ${line}`).join('\n\n');
  await answering(page, { text });
  await say(page, 'Much');
  const log = page.getByRole('region', { name: 'Chat' });
  const rest = () => log.evaluate((box) => box.scrollHeight - box.scrollTop - box.clientHeight);
  await expect.poll(rest).toBeLessThan(2);
  await log.evaluate((box) => box.scrollTo(0, 0));
  await page.getByRole('button', { name: 'To the end' }).click();
  await expect.poll(rest).toBeLessThan(2);
  await expect(page.getByRole('status')).toHaveText('Answered. The answer has 160 words.');
});

test.describe('on a phone', () => {
  test.use({ viewport: { width: 375, height: 720 }, hasTouch: true, isMobile: true });

  test('everything fits, and chats are in a drawer', async ({ page }) => {
    const wide = '`' + 'x'.repeat(300) + '`\n\n```\n' + 'y'.repeat(300) + '\n```\n\n| a |\n| - |\n| ' + 'z'.repeat(300) + ' |';
    await answering(page, { text: wide });
    await say(page, 'w'.repeat(200));
    const overflow = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
    expect(overflow).toBeLessThanOrEqual(0);
    const log = await page.locator('.log').evaluate((box) => box.scrollWidth - box.clientWidth);
    expect(log).toBeLessThanOrEqual(0);

    const drawer = page.getByRole('complementary');
    await expect(drawer).toBeHidden();
    await page.getByRole('button', { name: 'Chats', exact: true }).tap();
    await expect(drawer).toBeVisible();
    await expect(page.getByRole('button', { name: 'Close the list of chats' })).toBeFocused();
    await page.keyboard.press('Escape');
    await expect(drawer).toBeHidden();
    await page.getByRole('button', { name: 'Chats', exact: true }).tap();
    await page.getByRole('button', { name: 'New chat' }).tap();
    await expect(drawer).toBeHidden();
    await expect(page.locator('.welcome')).toBeVisible();
    for (const name of ['Send', 'Attach a text file', 'Settings of this chat']) {
      const box = await page.getByRole('button', { name, exact: true }).boundingBox();
      expect(Math.min(box!.width, box!.height)).toBeGreaterThanOrEqual(36);
    }
  });
});
