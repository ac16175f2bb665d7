import { useEffect, useRef, useState } from 'preact/hooks';
import * as generate from '../generate';
import type { Turn } from '../types';
import { Chips } from './Chips';
import { focusComposer } from './Composer';

/** A user's turn while it is edited. Sending it begins another version of the chat from there on. */
export function Editor({ turn, close }: { turn: Turn; close: () => void }) {
  const box = useRef<HTMLTextAreaElement>(null);
  const [text, setText] = useState(turn.text);
  const [files, setFiles] = useState(turn.attachments ?? []);
  useEffect(() => {
    box.current!.focus();
    box.current!.setSelectionRange(text.length, text.length);
  }, []);
  const leave = () => {
    close();
    focusComposer();
  };
  const send = () => {
    if (!text.trim() && files.length === 0) return;
    generate.resend(turn, text, files);
    leave();
  };
  const onKeyDown = (event: KeyboardEvent) => {
    if (event.key === 'Enter' && !event.shiftKey && !event.isComposing) {
      event.preventDefault();
      send();
    } else if (event.key === 'Escape') {
      event.preventDefault();
      leave();
    }
  };
  return (
    <article class="turn said" aria-label="You said">
      <div class="editor">
        <Chips files={files} remove={(index) => setFiles(files.filter((_, other) => other !== index))} />
        <textarea
          ref={box}
          aria-label="Your message"
          value={text}
          onInput={(event) => setText(event.currentTarget.value)}
          onKeyDown={onKeyDown}
        />
        <div class="row">
          <button type="button" onClick={leave}>
            Cancel
          </button>
          <button type="button" class="primary" onClick={send}>
            Send
          </button>
        </div>
      </div>
    </article>
  );
}
