import { useState } from 'preact/hooks';
import * as api from '../api';
import * as state from '../state';
import { close, Modal } from './Modal';
import { SettingsDialog } from './Settings';

function KeyDialog({ reason }: { reason: string | undefined }) {
  const [value, setValue] = useState('');
  const [remember, setRemember] = useState(false);
  const submit = async (event: Event) => {
    event.preventDefault();
    if (!value.trim()) return;
    api.useKey(value.trim(), remember);
    await state.connect();
    if (state.server.peek()) close();
  };
  return (
    <Modal title="API key">
      <form class="stack" onSubmit={(event) => void submit(event)}>
        <p>{reason ? 'The server doesn’t take this key:' : 'This server answers whoever has one of its keys.'}</p>
        {reason && (
          <p class="field-problem" role="alert">
            {reason}
          </p>
        )}
        <label class="field">
          <span>Key</span>
          <input
            type="password"
            autocomplete="off"
            spellcheck={false}
            autofocus
            value={value}
            onInput={(event) => setValue(event.currentTarget.value)}
          />
        </label>
        <label class="check">
          <input type="checkbox" checked={remember} onChange={(event) => setRemember(event.currentTarget.checked)} />
          <span>Keep it on this device; otherwise it is forgotten with this tab</span>
        </label>
        <div class="row">
          {api.key.value && (
            <button
              type="button"
              onClick={() => {
                api.useKey('', false);
                close();
              }}
            >
              Forget the key
            </button>
          )}
          <button type="submit" class="primary" disabled={!value.trim()}>
            Use this key
          </button>
        </div>
      </form>
    </Modal>
  );
}

const COMMAND = /Mac|iPhone|iPad/.test(navigator.platform) ? '⌘' : 'Ctrl';

const SHORTCUTS: [string[], string][] = [
  [['Enter'], 'Send the message'],
  [['Shift', 'Enter'], 'Begin a new line'],
  [['Esc'], 'Stop the answer; leave an edit; close what is open'],
  [['↑'], 'In an empty message: edit what you said last'],
  [[COMMAND, 'K'], 'New chat'],
  [[COMMAND, '/'], 'This list'],
];

function ShortcutsDialog() {
  return (
    <Modal title="Keyboard shortcuts">
      <dl class="shortcuts">
        {SHORTCUTS.map(([keys, what]) => (
          <div key={what}>
            <dt>
              {keys.map((name) => (
                <kbd key={name}>{name}</kbd>
              ))}
            </dt>
            <dd>{what}</dd>
          </div>
        ))}
      </dl>
    </Modal>
  );
}

function RenameDialog() {
  const { id, title } = state.chat.value;
  const [value, setValue] = useState(title);
  const submit = (event: Event) => {
    event.preventDefault();
    const name = value.trim();
    if (name) state.change(id, (chat) => ({ ...chat, title: name, named: true }));
    close();
  };
  return (
    <Modal title="Rename the chat">
      <form class="stack" onSubmit={submit}>
        <label class="field">
          <span>Title</span>
          <input type="text" maxlength={200} autofocus value={value} onInput={(event) => setValue(event.currentTarget.value)} />
        </label>
        <div class="row">
          <button type="button" onClick={close}>
            Cancel
          </button>
          <button type="submit" class="primary">
            Rename
          </button>
        </div>
      </form>
    </Modal>
  );
}

function ConfirmDialog({ title, text, action, run }: Extract<state.Dialog, { kind: 'confirm' }>) {
  return (
    <Modal title={title}>
      <p>{text}</p>
      <div class="row">
        <button type="button" autofocus onClick={close}>
          Cancel
        </button>
        <button
          type="button"
          class="primary danger"
          onClick={() => {
            close();
            run();
          }}
        >
          {action}
        </button>
      </div>
    </Modal>
  );
}

/** The dialog that is open. */
export function Dialogs() {
  const open = state.dialog.value;
  switch (open?.kind) {
    case 'key':
      return <KeyDialog reason={open.reason} />;
    case 'settings':
      return <SettingsDialog />;
    case 'shortcuts':
      return <ShortcutsDialog />;
    case 'rename':
      return <RenameDialog />;
    case 'confirm':
      return <ConfirmDialog {...open} />;
    default:
      return null;
  }
}
