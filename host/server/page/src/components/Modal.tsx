import type { ComponentChildren } from 'preact';
import { useEffect, useRef } from 'preact/hooks';
import * as state from '../state';
import { IconButton } from './icons';

/** Closes the open dialog. */
export const close = () => (state.dialog.value = null);

/** A dialog: the browser keeps the focus in it, closes it at Escape, and gives the focus back. */
export function Modal({ title, side, children }: { title: string; side?: boolean; children: ComponentChildren }) {
  const box = useRef<HTMLDialogElement>(null);
  useEffect(() => {
    const dialog = box.current!;
    const opener = document.activeElement as HTMLElement | null;
    dialog.showModal();
    return () => {
      dialog.close();
      if (opener?.isConnected) opener.focus();
    };
  }, []);
  return (
    <dialog
      ref={box}
      class={side ? 'side' : ''}
      aria-labelledby="dialog-title"
      onClose={close}
      onCancel={(event) => (event.preventDefault(), close())}
      onMouseDown={(event) => event.target === box.current && close()}
    >
      <div class="dialog-body">
        <div class="dialog-head">
          <h2 id="dialog-title">{title}</h2>
          <IconButton icon="close" label="Close" onClick={close} />
        </div>
        {children}
      </div>
    </dialog>
  );
}
