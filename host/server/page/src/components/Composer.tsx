import { useRef, useState } from 'preact/hooks';
import { MAX_FILES, readText } from '../files';
import * as generate from '../generate';
import * as state from '../state';
import { path } from '../tree';
import type { Attachment } from '../types';
import { Chips } from './Chips';
import { Icon, IconButton } from './icons';

/** Puts the focus where the next message is written; on a touch screen only where asked, as a keyboard comes up. */
export function focusComposer(always = false): void {
  if (!always && !matchMedia('(hover: hover)').matches) return;
  // Once what made way for it is gone.
  requestAnimationFrame(() => document.getElementById('message')?.focus());
}

/** What was begun and not sent, by chat. */
const drafts = new Map<string, { text: string; files: Attachment[] }>();

/** How full the context is. */
function Context() {
  const limit = state.server.value?.context;
  const last = path(state.chat.value).findLast((turn) => turn.stats?.prompt !== undefined);
  if (!limit || !last?.stats) return null;
  const used = (last.stats.prompt ?? 0) + (last.stats.completion ?? 0);
  const share = Math.min(1, used / limit);
  return (
    <span class={`context ${share > 0.9 ? 'is-full' : ''}`}>
      {used.toLocaleString('en')} of {limit.toLocaleString('en')} tokens in context
    </span>
  );
}

/** What is written in a chat and not sent yet, and what is wrong with a file that was to go with it. */
function useDraft(id: string) {
  const draft = drafts.get(id);
  const [text, setText] = useState(draft?.text ?? '');
  const [files, setFiles] = useState<Attachment[]>(draft?.files ?? []);
  const [problem, setProblem] = useState('');
  const set = (nextText: string, nextFiles: Attachment[]) => {
    setText(nextText);
    setFiles(nextFiles);
    if (nextText || nextFiles.length) drafts.set(id, { text: nextText, files: nextFiles });
    else drafts.delete(id);
  };
  const attach = async (list: FileList | null | undefined) => {
    setProblem('');
    const next = [...files];
    for (const file of list ?? []) {
      if (next.length >= MAX_FILES) {
        setProblem(`At most ${MAX_FILES} files go with a message.`);
        break;
      }
      try {
        next.push(await readText(file));
      } catch (error) {
        setProblem((error as Error).message);
      }
    }
    set(text, next);
    focusComposer();
  };
  const send = () => {
    if ((!text.trim() && files.length === 0) || state.isRunning.peek()) return;
    generate.send(text, files);
    set('', []);
    setProblem('');
    focusComposer();
  };
  return { text, files, problem, set, attach, send };
}

type Draft = ReturnType<typeof useDraft>;

function AttachButton({ attach }: Pick<Draft, 'attach'>) {
  const input = useRef<HTMLInputElement>(null);
  return (
    <>
      <IconButton icon="attach" label="Attach a text file" onClick={() => input.current?.click()} />
      <input
        ref={input}
        type="file"
        multiple
        hidden
        aria-label="Text files"
        onChange={async (event) => {
          const box = event.currentTarget;
          await attach(box.files);
          box.value = '';
        }}
      />
    </>
  );
}

function Entry({ text, files, set, attach, send }: Draft) {
  const onKeyDown = (event: KeyboardEvent) => {
    if (event.key === 'Enter' && !event.shiftKey && !event.isComposing) {
      event.preventDefault();
      send();
    } else if (event.key === 'ArrowUp' && !text) {
      // As in a shell: the last thing said.
      const edits = document.querySelectorAll<HTMLButtonElement>('.said [aria-label="Edit"]:enabled');
      edits[edits.length - 1]?.click();
    }
  };
  return (
    <div class="grow" data-text={text}>
      <textarea
        id="message"
        rows={1}
        aria-label="Message"
        placeholder="Write a message"
        value={text}
        autofocus={matchMedia('(hover: hover)').matches}
        enterkeyhint="send"
        onInput={(event) => set(event.currentTarget.value, files)}
        onKeyDown={onKeyDown}
        onPaste={(event) => {
          if (!event.clipboardData?.files.length) return;
          event.preventDefault();
          void attach(event.clipboardData.files);
        }}
      />
    </div>
  );
}

function SendButton({ text, files }: Draft) {
  if (state.isRunning.value) return <IconButton class="send" icon="stop" label="Stop" onClick={generate.stop} />;
  const isEmpty = !text.trim() && files.length === 0;
  return (
    <button type="submit" class="icon-button send" aria-label="Send" title="Send" disabled={isEmpty}>
      <Icon name="send" />
    </button>
  );
}

const hasFiles = (event: DragEvent) => event.dataTransfer?.types.includes('Files') ?? false;

function Form({ id }: { id: string }) {
  const draft = useDraft(id);
  const { text, files, problem, set, attach, send } = draft;
  const [isOver, setOver] = useState(false);
  return (
    <form
      class={`composer ${isOver ? 'is-over' : ''}`}
      aria-label="Message"
      onSubmit={(event) => {
        event.preventDefault();
        send();
      }}
      onDragOver={(event) => {
        if (!hasFiles(event)) return;
        event.preventDefault();
        setOver(true);
      }}
      onDragLeave={() => setOver(false)}
      onDrop={(event) => {
        setOver(false);
        if (!hasFiles(event)) return;
        event.preventDefault();
        void attach(event.dataTransfer?.files);
      }}
    >
      <Chips files={files} remove={(index) => set(text, files.filter((_, other) => other !== index))} />
      {problem && (
        <p class="field-problem" role="alert">
          {problem}
        </p>
      )}
      <div class="entry">
        <AttachButton attach={attach} />
        <Entry {...draft} />
        <SendButton {...draft} />
      </div>
    </form>
  );
}

/** Where the next message is written. */
export function Composer() {
  const { id } = state.chat.value;
  return (
    <div class="composer-frame">
      <Form key={id} id={id} />
      <p class="hint">
        <span class="only-wide">Enter sends, Shift+Enter breaks the line, Ctrl+/ lists the keys.</span>
        <Context />
      </p>
    </div>
  );
}
