import { useLayoutEffect, useMemo, useRef } from 'preact/hooks';
import { copy } from '../clipboard';
import { blocks, rendered, type Block } from '../markdown';

/** A block is only built anew where it changes: what a reader has selected in others stays selected. */
function BlockView({ block }: { block: Block }) {
  const box = useRef<HTMLDivElement>(null);
  useLayoutEffect(() => {
    box.current!.replaceChildren(rendered(block));
  }, [block.key]);
  return <div class="block" ref={box} />;
}

async function onClick(event: MouseEvent): Promise<void> {
  const button = (event.target as Element).closest<HTMLButtonElement>('.copy-code');
  const code = button?.closest('.code')?.querySelector('pre')?.textContent;
  if (!button || code == null) return;
  button.textContent = (await copy(code)) ? 'Copied' : 'Not copied';
  setTimeout(() => (button.textContent = 'Copy'), 2000);
}

/** A model's text. */
export function Markdown({ text }: { text: string }) {
  const parts = useMemo(() => blocks(text), [text]);
  if (!parts) return <div class="markdown plain">{text}</div>;
  return (
    <div class="markdown" onClick={(event) => void onClick(event)}>
      {parts.map((block, index) => (
        <BlockView key={index} block={block} />
      ))}
    </div>
  );
}
