import { useEffect, useLayoutEffect, useRef, useState } from 'preact/hooks';
import * as state from '../state';
import { children, path } from '../tree';
import { Icon } from './icons';
import { TurnView } from './Turn';

/** How near the end counts as at the end, in pixels. */
const NEAR = 48;

function Welcome() {
  const { context } = state.server.value ?? {};
  return (
    <div class="welcome">
      <h2>Ask anything</h2>
      <p>
        {state.model.value ? <strong>{state.model.value}</strong> : 'The model'} answers on your own server
        {context ? `, and remembers ${context.toLocaleString('en')} tokens at a time` : ''}. Chats stay in this browser.
      </p>
    </div>
  );
}

/** The turns of the open chat. It follows the end while the reader is there. */
export function Log() {
  const chat = state.chat.value;
  const tree = children(chat);
  const turns = path(chat, tree);
  const box = useRef<HTMLDivElement>(null);
  const follows = useRef(true);
  const [isBehind, setBehind] = useState(false);

  const toEnd = (behavior: ScrollBehavior) => box.current?.scrollTo({ top: box.current.scrollHeight, behavior });
  const count = turns.length;
  // Another chat, and what the reader has just said, are shown from their ends.
  useLayoutEffect(() => {
    follows.current = true;
    toEnd('instant');
  }, [chat.id, count]);
  useLayoutEffect(() => {
    if (follows.current) toEnd('instant');
  });
  // Fonts, images and folds change heights later.
  useEffect(() => {
    const watcher = new ResizeObserver(() => {
      if (follows.current) toEnd('instant');
    });
    const inner = box.current?.firstElementChild;
    if (inner) watcher.observe(inner);
    if (box.current) watcher.observe(box.current);
    return () => watcher.disconnect();
  }, []);
  const onScroll = () => {
    const { scrollTop, scrollHeight, clientHeight } = box.current!;
    follows.current = scrollHeight - scrollTop - clientHeight < NEAR;
    setBehind(!follows.current);
  };

  return (
    <div class="log-frame">
      <div class="log" ref={box} onScroll={onScroll} tabIndex={0} role="region" aria-label="Chat" aria-busy={state.isRunning.value}>
        <div class="turns">
          {count === 0 && <Welcome />}
          {turns.map((turn, index) => {
            const all = tree.get(turn.parent) ?? [];
            return (
              <TurnView
                key={turn.id}
                turn={turn}
                index={all.findIndex((other) => other.id === turn.id)}
                count={all.length}
                isLast={index === count - 1}
                isRunning={state.isRunning.value}
              />
            );
          })}
        </div>
      </div>
      {isBehind && (
        <button type="button" class="to-end" onClick={() => toEnd('smooth')}>
          <Icon name="down" /> To the end
        </button>
      )}
    </div>
  );
}
