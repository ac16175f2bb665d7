import * as state from '../state';
import { Icon, IconButton } from './icons';

function Model() {
  const models = state.server.value?.models ?? [];
  const running = state.isRunning.value;
  if (models.length < 2) {
    return <span class="model">{models[0] ?? ''}</span>;
  }
  return (
    <select
      class="model"
      aria-label="Model"
      disabled={running}
      value={state.model.value}
      onChange={(event) => state.chooseModel(event.currentTarget.value)}
    >
      {models.map((name) => (
        <option key={name} value={name}>
          {name}
        </option>
      ))}
    </select>
  );
}

function confirmRemoval(): void {
  const { id, title } = state.chat.peek();
  state.dialog.value = {
    kind: 'confirm',
    title: 'Delete this chat?',
    text: `“${title}” is deleted from this browser. There is no other copy.`,
    action: 'Delete',
    run: () => void state.removeChat(id),
  };
}

/** Hides the menu that a button stands in. */
function leaving(run: () => void) {
  return (event: Event) => {
    (event.currentTarget as HTMLElement).closest<HTMLElement>('[popover]')?.hidePopover();
    run();
  };
}

export function Header() {
  const isEmpty = state.chat.value.turns.length === 0;
  return (
    <header>
      <IconButton
        class="only-narrow"
        icon="menu"
        label="Chats"
        aria-expanded={state.drawer.value}
        onClick={() => (state.drawer.value = true)}
      />
      <div class="titles">
        <h1 title={state.chat.value.title}>{isEmpty ? 'New chat' : state.chat.value.title}</h1>
        <Model />
      </div>
      <IconButton icon="sliders" label="Settings of this chat" onClick={() => (state.dialog.value = { kind: 'settings' })} />
      {!isEmpty && (
        <>
          <button type="button" class="icon-button" aria-label="More for this chat" title="More for this chat" popovertarget="chat-menu">
            <Icon name="more" />
          </button>
          <div id="chat-menu" class="menu" popover="auto">
            <button type="button" onClick={leaving(() => (state.dialog.value = { kind: 'rename' }))}>
              Rename
            </button>
            <button type="button" onClick={leaving(state.exportChat)}>
              Export as JSON
            </button>
            <button type="button" class="danger" onClick={leaving(confirmRemoval)}>
              Delete
            </button>
          </div>
        </>
      )}
    </header>
  );
}
