// What tests do on the page, and answers that they make up.

import type { Locator, Page, Route } from '@playwright/test';

export const message = (page: Page): Locator => page.getByRole('textbox', { name: 'Message' });
export const answers = (page: Page): Locator => page.locator('article.answer');
export const said = (page: Page): Locator => page.locator('article.said');
/** What was said, without the buttons. */
export const words = (page: Page): Locator => said(page).locator('.bubble');
/** The last answer's figures, which say how many tokens it has; there once it has begun. */
export const figures = (page: Page): Locator => answers(page).last().locator('.figures');

/** Says something and waits until it is answered. */
export async function say(page: Page, text: string): Promise<void> {
  await message(page).fill(text);
  await message(page).press('Enter');
  await done(page);
}

export async function done(page: Page): Promise<void> {
  await page.locator('.log[aria-busy="false"]').waitFor();
  await page.getByRole('button', { name: 'Send', exact: true }).waitFor();
}

export interface Made {
  text?: string;
  thoughts?: string;
  calls?: { name: string; arguments: string }[];
  finish?: string;
}

/** The stream of an answer, in pieces of a few characters. */
export function stream({ text = '', thoughts = '', calls = [], finish = 'stop' }: Made): string {
  const pieces = (whole: string) => whole.match(/[\s\S]{1,7}/g) ?? [];
  const deltas: object[] = [
    { role: 'assistant', content: '' },
    ...pieces(thoughts).map((piece) => ({ reasoning_content: piece })),
    ...pieces(text).map((content) => ({ content })),
    ...calls.flatMap((call, index) => [
      { tool_calls: [{ index, id: `call_${index}`, type: 'function', function: { name: call.name, arguments: '' } }] },
      ...pieces(call.arguments).map((piece) => ({ tool_calls: [{ index, function: { arguments: piece } }] })),
    ]),
  ];
  const usage = { prompt_tokens: 30, completion_tokens: 12, total_tokens: 42, prompt_tokens_details: { cached_tokens: 20 } };
  const chunks: object[] = [
    ...deltas.map((delta) => ({ choices: [{ index: 0, delta, finish_reason: null }] })),
    { choices: [{ index: 0, delta: {}, finish_reason: finish }] },
    { choices: [], usage },
  ];
  return `${chunks.map((chunk) => `data: ${JSON.stringify(chunk)}\n\n`).join('')}data: [DONE]\n\n`;
}

/** Answers requests with these in turn, the last one again and again. Gives the bodies that were sent. */
export async function answering(page: Page, ...made: (Made | ((route: Route) => Promise<void>))[]): Promise<any[]> {
  const bodies: any[] = [];
  await page.route('**/v1/chat/completions', async (route) => {
    const next = made[Math.min(bodies.length, made.length - 1)]!;
    bodies.push(route.request().postDataJSON());
    if (typeof next === 'function') await next(route);
    else await route.fulfill({ contentType: 'text/event-stream', body: stream(next) });
  });
  return bodies;
}

/** Refuses a request with the server's form of a sentence. */
export function refusing(status: number, sentence: string) {
  return (route: Route) =>
    route.fulfill({ status, json: { error: { message: sentence, type: 'server_error', param: null, code: null } } });
}

/** Lets the server answer, with these fields in the request. */
export async function requesting(page: Page, fields: object): Promise<any[]> {
  const bodies: any[] = [];
  await page.route('**/v1/chat/completions', async (route) => {
    const body = { ...route.request().postDataJSON(), ...fields };
    bodies.push(body);
    await route.continue({ postData: JSON.stringify(body) });
  });
  return bodies;
}
