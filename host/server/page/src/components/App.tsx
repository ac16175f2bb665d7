import { useEffect } from 'preact/hooks';
import * as generate from '../generate';
import * as state from '../state';
import { Banners } from './Banners';
import { Composer, focusComposer } from './Composer';
import { Dialogs } from './Dialogs';
import { Header } from './Header';
import { Log } from './Log';
import { Sidebar } from './Sidebar';

/** What keys do wherever they are pressed; [`Dialogs`] lists them. */
function onKey(event: KeyboardEvent): void {
  const command = (event.ctrlKey || event.metaKey) && !event.altKey && !event.shiftKey;
  if (command && event.key.toLowerCase() === 'k') {
    event.preventDefault();
    if (state.dialog.peek()) return;
    state.startNew();
    focusComposer();
  } else if (command && event.key === '/') {
    event.preventDefault();
    state.dialog.value = state.dialog.peek()?.kind === 'shortcuts' ? null : (state.dialog.peek() ?? { kind: 'shortcuts' });
  } else if (event.key === 'Escape' && !event.defaultPrevented && !state.dialog.peek()) {
    // An open menu takes it first.
    if (document.querySelector(':popover-open')) return;
    if (state.drawer.peek()) state.drawer.value = false;
    else if (state.isRunning.peek()) generate.stop();
  }
}

export function App() {
  useEffect(() => {
    document.addEventListener('keydown', onKey);
    return () => document.removeEventListener('keydown', onKey);
  }, []);
  const title = state.chat.value.turns.length ? `${state.chat.value.title} – HERALD` : 'HERALD';
  useEffect(() => {
    document.title = title;
  }, [title]);
  return (
    <>
      <a class="skip" href="#message" onClick={(event) => (event.preventDefault(), focusComposer(true))}>
        Skip to the message
      </a>
      <div class="app">
        <Sidebar />
        <div class="backdrop" hidden={!state.drawer.value} onClick={() => (state.drawer.value = false)} />
        <div class="main" inert={state.drawer.value}>
          <Header />
          <main>
            <Banners />
            <Log />
            <Composer />
          </main>
        </div>
      </div>
      <Dialogs />
      <div class="hidden" role="status" aria-live="polite">
        {state.announcement.value}
      </div>
    </>
  );
}
