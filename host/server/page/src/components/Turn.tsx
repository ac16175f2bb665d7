import { Component } from 'preact';
import { useState } from 'preact/hooks';
import { copy } from '../clipboard';
import * as generate from '../generate';
import * as state from '../state';
import { stepped, without } from '../tree';
import type { Stats, Turn } from '../types';
import { Editor } from './Editor';
import { Icon, IconButton } from './icons';
import { Markdown } from './Markdown';
import { Calls, Results } from './Tools';

interface Props {
  turn: Turn;
  /** Which of its parent's versions this is, and of how many. */
  index: number;
  count: number;
  isLast: boolean;
  isRunning: boolean;
}

function CopyButton({ text }: { text: string }) {
  const [done, setDone] = useState<boolean | null>(null);
  const label = done === null ? 'Copy' : done ? 'Copied' : 'It can’t be copied';
  return (
    <IconButton
      icon={done ? 'check' : 'copy'}
      label={label}
      onClick={async () => {
        setDone(await copy(text));
        setTimeout(() => setDone(null), 2000);
      }}
    />
  );
}

function Versions({ turn, index, count, isRunning }: Props) {
  const step = (by: number) => state.change(state.chat.peek().id, (chat) => stepped(chat, turn, by));
  return (
    <span class="versions" role="group" aria-label="Versions">
      <IconButton icon="previous" label="Previous version" disabled={isRunning || index === 0} onClick={() => step(-1)} />
      <span>
        {index + 1} of {count}
      </span>
      <IconButton icon="next" label="Next version" disabled={isRunning || index === count - 1} onClick={() => step(1)} />
    </span>
  );
}

function confirmRemoval(turn: Turn, isLast: boolean): void {
  const { id } = state.chat.peek();
  state.dialog.value = {
    kind: 'confirm',
    title: isLast ? 'Delete this turn?' : 'Delete from here on?',
    text: isLast ? 'It is deleted from this browser.' : 'This turn and all that follows it are deleted from this browser.',
    action: 'Delete',
    run: () => state.change(id, (chat) => without(chat, turn.id)),
  };
}

function Actions(props: Props & { edit?: () => void }) {
  const { turn, isLast, isRunning, edit, count } = props;
  return (
    <div class="actions">
      {count > 1 && <Versions {...props} />}
      {turn.text && <CopyButton text={turn.text} />}
      {edit && <IconButton icon="edit" label="Edit" disabled={isRunning} onClick={edit} />}
      {isLast && generate.canGoOn(turn) && (
        <IconButton icon="onward" label="Go on" disabled={isRunning} onClick={() => generate.goOn(turn)} />
      )}
      {turn.role === 'assistant' && (
        <IconButton icon="again" label="Answer again" disabled={isRunning} onClick={() => generate.regenerate(turn)} />
      )}
      <IconButton icon="trash" label="Delete" disabled={isRunning} onClick={() => confirmRemoval(turn, isLast)} />
    </div>
  );
}

function seconds(milliseconds: number): string {
  const value = milliseconds / 1000;
  return value < 10 ? `${value.toFixed(1)} s` : `${Math.round(value)} s`;
}

const count = (value: number) => value.toLocaleString('en');

/** Decode's rate: the first token is the prompt's work. */
function rate({ completion, took }: Stats): string | null {
  if (completion === undefined || completion < 2 || !took) return null;
  const value = ((completion - 1) / took) * 1000;
  return `${value < 10 ? value.toFixed(1) : count(Math.round(value))} tokens/s`;
}

/** An answer's figures, as they are known. */
function Figures({ stats, finish }: { stats: Stats | undefined; finish: string | undefined }) {
  if (!stats) return null;
  const parts: string[] = [];
  if (stats.completion !== undefined) parts.push(`${count(stats.completion)} tokens`);
  const speed = rate(stats);
  if (speed) parts.push(speed);
  if (stats.wait !== undefined) parts.push(`first after ${seconds(stats.wait)}`);
  if (stats.prompt !== undefined) {
    const cached = stats.cached === undefined ? '' : `, ${count(stats.cached)} from the cache`;
    parts.push(`prompt of ${count(stats.prompt)}${cached}`);
  }
  if (finish === 'stopped') parts.unshift('stopped');
  if (finish === 'length') parts.unshift('cut at the limit of tokens');
  return <p class="figures">{parts.join(' · ')}</p>;
}

function Thoughts({ turn, isGrowing }: { turn: Turn; isGrowing: boolean }) {
  if (!turn.thoughts) return null;
  const isThinking = isGrowing && !turn.text && !turn.calls;
  const label = isThinking ? 'Thinking…' : `Thought for ${seconds(turn.thoughtFor ?? 0)}`;
  return (
    <details class="thoughts">
      <summary>{label}</summary>
      <Markdown text={turn.thoughts} />
    </details>
  );
}

function Answer(props: Props) {
  const { turn, isLast, isRunning } = props;
  const isGrowing = isLast && isRunning;
  const isWaiting = isGrowing && !turn.text && !turn.thoughts && !turn.calls;
  return (
    <article class="turn answer" aria-label={`Answer${turn.model ? ` of ${turn.model}` : ''}`}>
      <h2 class="hidden">Answer</h2>
      <Thoughts turn={turn} isGrowing={isGrowing} />
      {isWaiting && (
        <p class="waiting">
          <span />
          <span />
          <span />
          <span class="hidden">Waiting for the first token</span>
        </p>
      )}
      {turn.text && <Markdown text={turn.text} />}
      {turn.calls && <Calls key={turn.id} turn={turn} takesResults={isLast && !isRunning} />}
      {turn.error && (
        <div class="problem" role="alert">
          <p>{turn.error}</p>
          <button type="button" disabled={isRunning} onClick={() => generate.regenerate(turn)}>
            Try again
          </button>
        </div>
      )}
      {!isGrowing && !turn.text && !turn.calls && !turn.error && <p class="nothing">The answer is empty.</p>}
      <div class="below">
        {!isGrowing && <Actions {...props} />}
        <Figures stats={turn.stats} finish={turn.finish} />
      </div>
    </article>
  );
}

function Said(props: Props) {
  const { turn } = props;
  const [isEdited, setEdited] = useState(false);
  if (isEdited) return <Editor turn={turn} close={() => setEdited(false)} />;
  return (
    <article class="turn said" aria-label="You said">
      <h2 class="hidden">You said</h2>
      <div class="bubble">
        {turn.attachments?.map((file, index) => (
          <details key={index} class="attached">
            <summary>
              <Icon name="file" />
              {file.name}
            </summary>
            <pre tabIndex={0}>{file.text}</pre>
          </details>
        ))}
        {turn.text && <p>{turn.text}</p>}
      </div>
      <Actions {...props} edit={() => setEdited(true)} />
    </article>
  );
}

/** One turn of the chat. While an answer grows, the others stay as they are. */
export class TurnView extends Component<Props> {
  override shouldComponentUpdate(next: Props): boolean {
    return (Object.keys(next) as (keyof Props)[]).some((name) => next[name] !== this.props[name]);
  }

  override render() {
    const { turn } = this.props;
    if (turn.role === 'user') return <Said {...this.props} />;
    if (turn.role === 'assistant') return <Answer {...this.props} />;
    return (
      <article class="turn" aria-label="What the tools gave">
        <h2 class="hidden">What the tools gave</h2>
        <Results turn={turn} />
        <Actions {...this.props} />
      </article>
    );
  }
}
