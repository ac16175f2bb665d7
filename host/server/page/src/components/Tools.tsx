import { useState } from 'preact/hooks';
import * as generate from '../generate';
import type { Call, Turn } from '../types';
import { focusComposer } from './Composer';
import { Icon } from './icons';

/** A call's arguments, laid out where they are JSON. */
function pretty(text: string): string {
  try {
    return JSON.stringify(JSON.parse(text), null, 2);
  } catch {
    return text;
  }
}

function CallView({ call }: { call: Call }) {
  return (
    <details class="call" open>
      <summary>
        <Icon name="tool" />
        Calls <code>{call.name}</code>
      </summary>
      <pre tabIndex={0} role="region" aria-label={`Arguments of ${call.name}`}>
        {pretty(call.arguments)}
      </pre>
    </details>
  );
}

/** The calls of an answer; where it is the last turn, with room for what they gave. */
export function Calls({ turn, takesResults }: { turn: Turn; takesResults: boolean }) {
  const calls = turn.calls ?? [];
  const [contents, setContents] = useState<string[]>(calls.map(() => ''));
  const give = (event: Event) => {
    event.preventDefault();
    generate.giveResults(
      turn,
      calls.map(({ id, name }, index) => ({ id, name, content: contents[index] ?? '' })),
    );
    focusComposer();
  };
  return (
    <form class="calls" onSubmit={give}>
      {calls.map((call, index) => (
        <div key={index}>
          <CallView call={call} />
          {takesResults && (
            <label class="field">
              <span>What {call.name} gave</span>
              <textarea
                rows={2}
                value={contents[index] ?? ''}
                onInput={(event) => {
                  const next = [...contents];
                  next[index] = event.currentTarget.value;
                  setContents(next);
                }}
              />
            </label>
          )}
        </div>
      ))}
      {takesResults && (
        <button type="submit" class="primary">
          {calls.length > 1 ? 'Give the results' : 'Give the result'}
        </button>
      )}
    </form>
  );
}

/** What calls gave. */
export function Results({ turn }: { turn: Turn }) {
  return (
    <div class="calls">
      {turn.results?.map((result, index) => (
        <details key={index} class="call" open>
          <summary>
            <Icon name="tool" />
            <code>{result.name}</code> gave
          </summary>
          <pre tabIndex={0} role="region" aria-label={`What ${result.name} gave`}>
            {pretty(result.content)}
          </pre>
        </details>
      ))}
    </div>
  );
}
