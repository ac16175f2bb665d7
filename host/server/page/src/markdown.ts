// A model's text, which is not to be trusted, as elements of the page.
//
// HTML that a model writes is shown as it is written. What Markdown becomes passes DOMPurify with a short list of elements and
// attributes; the Content-Security-Policy stands behind that.

import DOMPurify from 'dompurify';
import { Marked, type Token, type Tokens, type TokensList } from 'marked';
import { highlighted } from './highlight';

const escape = (text: string) =>
  text.replace(/[&<>"']/g, (c) => `&#${c.charCodeAt(0)};`);

/** Tags without attributes that models use where Markdown has no words for it. */
const HARMLESS = /^<\/?(?:br|kbd|sub|sup)\s*\/?>$/i;

/** Images that come with the text itself. */
const EMBEDDED = /^data:image\/(?:png|jpeg|gif|webp);base64,/i;

/** The level of headings within lists and quotes. */
const LOWEST = 6;

const marked = new Marked({
  gfm: true,
  renderer: {
    html({ text }) {
      return HARMLESS.test(text.trim()) ? text : escape(text);
    },
    code({ text, lang }) {
      const language = /^[\w+#.-]{1,30}/.exec(lang ?? '')?.[0].toLowerCase() ?? '';
      const inner = highlighted(text, language) ?? escape(text);
      return `<pre class="language-${escape(language)}"><code>${inner}</code></pre>`;
    },
    heading({ tokens, level = LOWEST }: Tokens.Heading & { level?: number }) {
      return `<h${level}>${this.parser.parseInline(tokens)}</h${level}>`;
    },
    image({ href, text }) {
      if (EMBEDDED.test(href)) return `<img src="${escape(href)}" alt="${escape(text)}">`;
      // Fetching it would tell its server that this was read.
      return `<a href="${escape(href)}">${escape(text || 'image')}</a>`;
    },
  },
});

const CLASS = /^(?:language-[\w+#.-]*|hljs-[\w-]+(?: (?:hljs-[\w-]+|[\w-]+_))*)$/;

DOMPurify.addHook('afterSanitizeAttributes', (node) => {
  if (node.hasAttribute('class') && !CLASS.test(node.className)) node.removeAttribute('class');
  if (node.tagName === 'A') {
    if (/^(?:https?:|mailto:)/i.test(node.getAttribute('href') ?? '')) {
      node.setAttribute('target', '_blank');
      node.setAttribute('rel', 'noopener noreferrer nofollow');
    } else {
      node.removeAttribute('href');
    }
  }
  if (node.tagName === 'IMG' && !EMBEDDED.test(node.getAttribute('src') ?? '')) node.remove();
  // Marked writes these for lists of tasks.
  if (node.tagName === 'INPUT') {
    if (node.getAttribute('type') !== 'checkbox') node.remove();
    else node.setAttribute('aria-label', node.hasAttribute('checked') ? 'done' : 'to do');
  }
});

const POLICY = {
  ALLOWED_TAGS: [
    'a', 'blockquote', 'br', 'code', 'del', 'em', 'h3', 'h4', 'h5', 'h6', 'hr', 'img', 'input', 'kbd', 'li', 'ol', 'p', 'pre',
    'span', 'strong', 'sub', 'sup', 'table', 'tbody', 'td', 'th', 'thead', 'tr', 'ul',
  ],
  ALLOWED_ATTR: ['align', 'alt', 'checked', 'class', 'disabled', 'href', 'src', 'start', 'title', 'type'],
  ALLOW_ARIA_ATTR: false,
  ALLOW_DATA_ATTR: false,
  // What holds no address isn't compared with the pattern of addresses.
  ADD_URI_SAFE_ATTR: ['align', 'checked', 'disabled', 'start', 'type'],
  ALLOWED_URI_REGEXP: /^(?:https?:|mailto:|data:image\/)/i,
  RETURN_DOM_FRAGMENT: true as const,
};

/** Gives headings levels below the page's own and without gaps, whatever the model began with. */
function level(tokens: Token[]): void {
  const open: number[] = [];
  for (const token of tokens) {
    if (token.type !== 'heading') continue;
    while ((open.at(-1) ?? 0) >= token.depth) open.pop();
    open.push(token.depth);
    Object.assign(token, { level: Math.min(LOWEST, open.length + 2) });
  }
}

/** A block of a text: a paragraph, a list, a table, code. */
export interface Block {
  /** The same for the same looks. */
  key: string;
  token: Token;
}

/** Longer texts stay plain. */
const LONGEST = 400_000;

/** The blocks of a text; `null` where it can't be read as Markdown. */
export function blocks(text: string): Block[] | null {
  if (text.length > LONGEST) return null;
  let tokens: TokensList;
  try {
    tokens = marked.lexer(text);
  } catch {
    // Nested too deeply.
    return null;
  }
  level(tokens);
  const links = Object.keys(tokens.links).length ? JSON.stringify(tokens.links) : '';
  return tokens
    .filter((token) => token.type !== 'space')
    .map((token) => ({ key: `${token.type} ${'level' in token ? token.level : ''}\n${token.raw}${links}`, token }));
}

/** Puts code into a frame with its language and a button that copies it. */
function frame(pre: HTMLElement): void {
  const language = pre.className.replace('language-', '');
  pre.tabIndex = 0;
  pre.setAttribute('role', 'region');
  pre.setAttribute('aria-label', language ? `Code in ${language}` : 'Code');
  const box = document.createElement('div');
  box.className = 'code';
  const bar = document.createElement('div');
  bar.className = 'code-bar';
  const label = document.createElement('span');
  label.textContent = language || 'text';
  const button = document.createElement('button');
  button.type = 'button';
  button.className = 'copy-code';
  button.textContent = 'Copy';
  button.setAttribute('aria-label', 'Copy this code');
  bar.append(label, button);
  pre.replaceWith(box);
  box.append(bar, pre);
}

/** The elements of a block. */
export function rendered({ token }: Block): Node {
  let html: string;
  try {
    html = marked.parser([token]);
  } catch {
    return document.createTextNode(token.raw);
  }
  const fragment = DOMPurify.sanitize(html, POLICY);
  for (const pre of fragment.querySelectorAll('pre')) frame(pre);
  for (const table of fragment.querySelectorAll('table')) {
    const box = document.createElement('div');
    box.className = 'table';
    box.tabIndex = 0;
    box.setAttribute('role', 'region');
    box.setAttribute('aria-label', 'Table');
    table.replaceWith(box);
    box.append(table);
  }
  return fragment;
}
