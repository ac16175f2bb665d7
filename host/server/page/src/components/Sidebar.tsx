import { useEffect, useRef, useState } from 'preact/hooks';
import { key } from '../api';
import * as state from '../state';
import type { Head } from '../types';
import { focusComposer } from './Composer';
import { Icon, IconButton, type IconName } from './icons';

type Theme = 'system' | 'light' | 'dark';

const THEMES: [Theme, IconName, string][] = [
  ['system', 'system', 'As the system'],
  ['light', 'sun', 'Light'],
  ['dark', 'moon', 'Dark'],
];

function setTheme(theme: Theme): void {
  if (theme === 'system') delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme;
  try {
    localStorage.setItem('herald.theme', theme);
  } catch {
    // It holds until the page is closed.
  }
}

function ThemeSwitch() {
  const [theme, choose] = useState<Theme>((document.documentElement.dataset.theme as Theme | undefined) ?? 'system');
  return (
    <fieldset class="themes">
      <legend class="hidden">Theme</legend>
      {THEMES.map(([name, icon, label]) => (
        <label key={name} title={label}>
          <input
            type="radio"
            name="theme"
            value={name}
            checked={theme === name}
            onChange={() => {
              setTheme(name);
              choose(name);
            }}
          />
          <Icon name={icon} />
          <span class="hidden">{label}</span>
        </label>
      ))}
    </fieldset>
  );
}

function MoreMenu() {
  const input = useRef<HTMLInputElement>(null);
  const menu = useRef<HTMLDivElement>(null);
  const leaving = (run: () => void) => () => {
    menu.current?.hidePopover();
    run();
  };
  return (
    <>
      <button type="button" class="icon-button" aria-label="More" title="More" popovertarget="more-menu">
        <Icon name="more" />
      </button>
      <div id="more-menu" class="menu" popover="auto" ref={menu}>
        <button type="button" onClick={leaving(() => (state.dialog.value = { kind: 'shortcuts' }))}>
          Keyboard shortcuts
        </button>
        <button type="button" onClick={leaving(() => void state.exportAll())}>
          Export all chats
        </button>
        <button type="button" onClick={leaving(() => input.current?.click())}>
          Import chats
        </button>
        <button type="button" onClick={leaving(() => (state.dialog.value = { kind: 'key' }))}>
          {key.value ? 'Change the API key' : 'Give an API key'}
        </button>
      </div>
      <input
        ref={input}
        type="file"
        accept="application/json,.json"
        hidden
        aria-label="File of exported chats"
        onChange={(event) => {
          const file = event.currentTarget.files?.[0];
          event.currentTarget.value = '';
          if (file) void state.importChats(file);
        }}
      />
    </>
  );
}

const DAY = 24 * 60 * 60 * 1000;

/** Under which heading a chat stands in the list. */
function age(updated: number): string {
  const midnight = new Date().setHours(0, 0, 0, 0);
  if (updated >= midnight) return 'Today';
  if (updated >= midnight - DAY) return 'Yesterday';
  return updated >= midnight - 7 * DAY ? 'This week' : 'Earlier';
}

function Chats() {
  const [wanted, want] = useState('');
  const all = state.heads.value;
  const words = wanted.toLowerCase();
  const found = words ? all.filter((head) => head.title.toLowerCase().includes(words)) : all;
  const groups = new Map<string, Head[]>();
  for (const head of found) {
    const name = age(head.updated);
    groups.set(name, [...(groups.get(name) ?? []), head]);
  }
  return (
    <>
      {(all.length > 8 || wanted) && (
        <input
          class="search"
          type="search"
          placeholder="Search titles"
          aria-label="Search the titles of chats"
          value={wanted}
          onInput={(event) => want(event.currentTarget.value)}
        />
      )}
      <nav aria-label="Chats">
        {[...groups].map(([name, heads]) => (
          <section key={name} aria-label={name}>
            <h2>{name}</h2>
            <ul>
              {heads.map((head) => (
                <li key={head.id}>
                  <a
                    href={`#${head.id}`}
                    aria-current={head.id === state.chat.value.id ? 'page' : undefined}
                    onClick={() => (state.drawer.value = false)}
                  >
                    {state.running.value.has(head.id) && <span class="dot" role="img" aria-label="Answering:" />}
                    {head.title}
                  </a>
                </li>
              ))}
            </ul>
          </section>
        ))}
        {found.length === 0 && <p class="nothing">{wanted ? 'No title has this.' : 'Chats are kept in this browser.'}</p>}
      </nav>
    </>
  );
}

export function Sidebar() {
  const close = useRef<HTMLDivElement>(null);
  const isOpen = state.drawer.value;
  const wasOpen = useRef(false);
  useEffect(() => {
    if (isOpen) close.current?.querySelector('button')?.focus();
    // Focus returns to where the drawer was opened, unless something else has taken it.
    else if (wasOpen.current && document.activeElement === document.body) {
      document.querySelector<HTMLElement>('header .only-narrow')?.focus();
    }
    wasOpen.current = isOpen;
  }, [isOpen]);
  return (
    <aside class={`sidebar ${isOpen ? 'is-open' : ''}`} aria-label="Chats and options">
      <div class="brand" ref={close}>
        <img src="page/icon.svg" alt="" width="24" height="24" />
        <span>HERALD</span>
        <IconButton class="only-narrow" icon="close" label="Close the list of chats" onClick={() => (state.drawer.value = false)} />
      </div>
      <button
        type="button"
        class="new"
        onClick={() => {
          state.startNew();
          focusComposer();
        }}
      >
        <Icon name="plus" /> New chat
      </button>
      <Chats />
      <div class="foot">
        <ThemeSwitch />
        <MoreMenu />
      </div>
    </aside>
  );
}
