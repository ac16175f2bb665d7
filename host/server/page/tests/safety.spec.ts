// What a model writes is not to be trusted, and the page asks nobody but its server.

import { answering, answers, message, say } from './helpers';
import { expect, serve, test } from './server';

const ATTACKS = [
  '<script>window.caught = 1</script>',
  '<img src=x onerror="window.caught = 1">',
  '<svg onload="window.caught = 1"></svg>',
  '<iframe srcdoc="<script>parent.caught = 1</script>"></iframe>',
  '<a href="javascript:window.caught = 1">raw link</a>',
  '[link](javascript:window.caught=1)',
  '[link](java&#115;cript:window.caught=1)',
  '[link](data:text/html,<script>window.caught=1</script>)',
  '[link](vbscript:x "title\\" onmouseover=\\"window.caught=1")',
  '<form action="https://elsewhere.example"><button>go</button></form>',
  '<math><mtext><table><mglyph><style><img src=x onerror="window.caught=1">',
  '<style>body { display: none }</style>',
  '<base href="https://elsewhere.example/"><meta http-equiv="refresh" content="0;url=https://elsewhere.example">',
  '![far](https://elsewhere.example/pixel.png)',
  '![far](//elsewhere.example/pixel.png)',
  '![x](x"onerror="window.caught=1)',
  '```"><script>window.caught=1</script>\n<b>code</b>\n```',
  '| a |\n| - |\n| <img src=x onerror="window.caught=1"> |',
  '<br onclick="window.caught=1"> <sub style="position:fixed">low</sub>',
];

test('no markup of a model runs, loads or navigates', async ({ page, open }) => {
  await open();
  await answering(page, { text: ATTACKS.join('\n\n'), thoughts: ATTACKS.join('\n\n') });
  await say(page, ATTACKS.join('\n'));
  await page.locator('.thoughts summary').click();
  const answer = answers(page);
  await expect(answer.locator('script, iframe, svg:not(.icon), form, style, base, meta, math, [onclick], [onerror], [style]')).toHaveCount(0);
  await expect(answer.locator('.markdown img')).toHaveCount(0);
  const links = await answer.locator('.markdown a[href]').all();
  expect(links.length).toBeGreaterThan(0);
  for (const link of links) {
    expect(await link.getAttribute('href')).toMatch(/^https?:/);
    expect(await link.getAttribute('rel')).toBe('noopener noreferrer nofollow');
    expect(await link.getAttribute('target')).toBe('_blank');
  }
  // It is shown as it was written.
  await expect(answer.locator('.markdown').last()).toContainText('<script>window.caught = 1</script>');
  for (const link of await answer.locator('.markdown a:not([href])').all()) await link.click();
  expect(await page.evaluate(() => 'caught' in window)).toBe(false);
  await expect(page.locator('.composer')).toBeVisible();
});

test('Markdown is laid out: headings, lists, tables, code, small images', async ({ page, open }) => {
  await open();
  const pixel = 'data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==';
  await answering(page, {
    text: `# Title\n\nSome **bold**, *soft* and \`code\`, H<sub>2</sub>O.\n\n1. one\n   - inner\n2. two\n\n- [x] done\n\n| a | b |\n| - | -: |\n| 1 | 2 |\n\n![dot](${pixel})\n\n\`\`\`rust\nfn main() { println!("hi"); }\n\`\`\`\n`,
  });
  await say(page, 'Show me');
  const text = answers(page).locator('.markdown');
  await expect(text.locator('h3')).toHaveText('Title');
  await expect(text.locator('strong')).toHaveText('bold');
  await expect(text.locator('ol > li')).toHaveCount(2);
  await expect(text.locator('input[type=checkbox]')).toBeChecked();
  await expect(text.locator('td').last()).toHaveAttribute('align', 'right');
  await expect(text.locator('sub')).toHaveText('2');
  await expect(text.locator('img')).toHaveAttribute('alt', 'dot');
  await expect(text.locator('.code .hljs-keyword')).toHaveText('fn');
  await text.getByRole('button', { name: 'Copy this code' }).click();
  await expect(text.locator('.copy-code')).toHaveText('Copied');
  expect(await page.evaluate(() => navigator.clipboard.readText())).toBe('fn main() { println!("hi"); }');
});

test('texts that no one would write are shown plainly, and soon', async ({ page, open }) => {
  await open();
  await answering(page, { text: '> '.repeat(20_000) + 'deep' }, { text: '*a'.repeat(20_000) });
  await say(page, 'deep');
  await expect(answers(page).last()).toContainText('deep');
  await say(page, 'wide');
  await expect(answers(page).last()).toContainText('aaaa');
});

test('the policy stops what would get past all else', async ({ page, host }) => {
  // Not by `open`: here the policy is to be seen at work.
  await page.goto(host.url);
  const caught = await page.evaluate(async () => {
    const violated: string[] = [];
    document.addEventListener('securitypolicyviolation', (event) => violated.push(event.effectiveDirective));
    const image = document.createElement('img');
    image.src = 'https://elsewhere.example/pixel.png';
    document.body.append(image);
    await fetch('https://elsewhere.example/').catch(() => {});
    try {
      document.body.innerHTML = '<p>raw</p>';
    } catch {
      violated.push('trusted types');
    }
    await new Promise((resolve) => setTimeout(resolve, 200));
    return violated;
  });
  expect(caught).toEqual(expect.arrayContaining(['img-src', 'connect-src', 'trusted types']));
});

test('with keys, the page loads without one and asks for it', async ({ page, open, context }) => {
  const keyed = await serve('--api-key', 'a-secret');
  try {
    await open(keyed.url);
    const dialog = page.getByRole('dialog', { name: 'API key' });
    await expect(dialog).toBeVisible();
    await expect(dialog.getByLabel('Key', { exact: true })).toBeFocused();
    await dialog.getByLabel('Key', { exact: true }).fill('wrong');
    await page.keyboard.press('Enter');
    await expect(dialog.getByRole('alert')).toContainText('an API key that is not known');
    await dialog.getByLabel('Key', { exact: true }).fill('a-secret');
    await page.keyboard.press('Enter');
    await expect(dialog).toHaveCount(0);
    await page.route('**/v1/chat/completions', async (route) => {
      const body = { ...route.request().postDataJSON(), max_tokens: 4, ignore_eos: true };
      await route.continue({ postData: JSON.stringify(body) });
    });
    await say(page, 'Hello');
    await expect(answers(page).locator('.figures')).toContainText('4 tokens');

    // It is this tab's alone, unless it is to be kept.
    await page.reload();
    await expect(page.locator('.model')).not.toBeEmpty();
    const other = await context.newPage();
    await other.goto(keyed.url);
    await expect(other.getByRole('dialog', { name: 'API key' })).toBeVisible();
    await other.getByLabel('Key', { exact: true }).fill('a-secret');
    await other.getByLabel('Keep it on this device').check();
    await other.getByRole('button', { name: 'Use this key' }).click();
    await expect(other.getByRole('dialog')).toHaveCount(0);
    const third = await context.newPage();
    await third.goto(keyed.url);
    await expect(third.locator('.model')).not.toBeEmpty();
    await expect(message(third)).toBeFocused();

    await third.getByRole('button', { name: 'More', exact: true }).click();
    await third.getByRole('button', { name: 'Change the API key' }).click();
    await third.getByRole('button', { name: 'Forget the key' }).click();
    expect(await third.evaluate(() => localStorage.getItem('herald.key'))).toBeNull();
  } finally {
    await keyed.stop();
  }
});
