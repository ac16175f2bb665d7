import * as state from '../state';

/** What is wrong beyond one answer, each in a sentence. */
export function Banners() {
  const { serverProblem, storageProblem } = state;
  return (
    <div class="banners" role="alert">
      {serverProblem.value && (
        <p class="banner">
          <span>{serverProblem.value}</span>
          <button type="button" onClick={() => void state.connect()}>
            Try again
          </button>
        </p>
      )}
      {storageProblem.value && (
        <p class="banner">
          <span>{storageProblem.value}</span>
          {state.chat.value.turns.length > 0 && (
            <button type="button" onClick={state.exportChat}>
              Export this chat
            </button>
          )}
          <button type="button" onClick={() => (storageProblem.value = '')}>
            Close
          </button>
        </p>
      )}
    </div>
  );
}
