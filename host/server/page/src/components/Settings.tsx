import { useState } from 'preact/hooks';
import * as state from '../state';
import type { Settings } from '../types';
import { Modal } from './Modal';

type NumberName = 'temperature' | 'top_p' | 'top_k' | 'min_p' | 'max_tokens' | 'seed';

interface NumberField {
  name: NumberName;
  label: string;
  about: string;
  min: number;
  max?: number;
  step: number | 'any';
}

const NUMBERS: NumberField[] = [
  { name: 'temperature', label: 'Temperature', about: '0 always takes the likeliest token', min: 0, max: 10, step: 'any' },
  { name: 'top_p', label: 'Top-p', about: 'the likeliest tokens of this probability together', min: 0, max: 1, step: 'any' },
  { name: 'top_k', label: 'Top-k', about: 'so many of the likeliest tokens; 0: all', min: 0, step: 1 },
  { name: 'min_p', label: 'Min-p', about: 'none less likely than this share of the likeliest', min: 0, max: 1, step: 'any' },
  { name: 'max_tokens', label: 'Most tokens', about: 'of an answer', min: 1, step: 1 },
  { name: 'seed', label: 'Seed', about: 'the same seed gives the same answer', min: 0, step: 1 },
];

/** What a tool list is wrong about, in one sentence; empty where it is right. */
function problemOfTools(text: string): string {
  if (!text.trim()) return '';
  try {
    const tools = JSON.parse(text);
    const isTool = (tool: any) => typeof tool?.function?.name === 'string';
    if (Array.isArray(tools) && tools.every(isTool)) return '';
  } catch {
    // Told below.
  }
  return 'A JSON list of {"type": "function", "function": {"name": …}} was expected.';
}

/** What the server uses where nothing is given, as far as it tells. */
function defaultOf(name: NumberName): string {
  const value = state.server.value?.defaults[name];
  return typeof value === 'number' ? String(Number(value.toPrecision(4))) : 'as the server decides';
}

function NumberInput({ field, settings, set }: { field: NumberField; settings: Settings; set: (change: Settings) => void }) {
  const { name, label, about, ...bounds } = field;
  return (
    <label class="field number">
      <span>{label}</span>
      <input
        type="number"
        inputmode="decimal"
        {...bounds}
        placeholder={defaultOf(name)}
        value={settings[name] ?? ''}
        aria-describedby={`about-${name}`}
        onInput={(event) => {
          const { [name]: _former, ...rest } = settings;
          const value = event.currentTarget.valueAsNumber;
          set(Number.isNaN(value) ? rest : { ...rest, [name]: value });
        }}
      />
      <small id={`about-${name}`}>{about}</small>
    </label>
  );
}

function Thinking({ settings, set }: { settings: Settings; set: (change: Settings) => void }) {
  const value = settings.thinking === undefined ? '' : String(settings.thinking);
  return (
    <label class="field">
      <span>Thinking</span>
      <select
        value={value}
        onChange={(event) => {
          const { thinking: _former, ...rest } = settings;
          const chosen = event.currentTarget.value;
          set(chosen ? { ...rest, thinking: chosen === 'true' } : rest);
        }}
      >
        <option value="">As the model does</option>
        <option value="true">On</option>
        <option value="false">Off</option>
      </select>
      <small>for models that can do both</small>
    </label>
  );
}

/** How the open chat is answered. Changes count from the next answer on. */
export function SettingsDialog() {
  const { id, settings } = state.chat.value;
  const [tools, setTools] = useState(settings.tools ?? '');
  const [isKept, setKept] = useState(false);
  const set = (next: Settings) => {
    setKept(false);
    state.change(id, (chat) => ({ ...chat, settings: next }));
  };
  const setText = (name: 'system' | 'tools', text: string) => {
    const { [name]: _former, ...rest } = settings;
    set(text ? { ...rest, [name]: text } : rest);
  };
  const problem = problemOfTools(tools);
  return (
    <Modal title="Settings of this chat" side>
      <div class="stack">
        <label class="field">
          <span>System text</span>
          <textarea
            rows={5}
            placeholder="What the model is told before the chat"
            value={settings.system ?? ''}
            onInput={(event) => setText('system', event.currentTarget.value)}
          />
        </label>
        <fieldset class="numbers">
          <legend>Sampling</legend>
          {NUMBERS.map((field) => (
            <NumberInput key={field.name} field={field} settings={settings} set={set} />
          ))}
        </fieldset>
        <Thinking settings={settings} set={set} />
        <label class="field">
          <span>Tools</span>
          <textarea
            class="mono"
            rows={4}
            spellcheck={false}
            placeholder={'[{"type": "function", "function": {"name": "weather", …}}]'}
            value={tools}
            aria-invalid={problem !== ''}
            aria-describedby="about-tools"
            onInput={(event) => {
              const text = event.currentTarget.value;
              setTools(text);
              // A list that can't be read is not sent.
              if (!problemOfTools(text)) setText('tools', text);
            }}
          />
          <small id="about-tools" class={problem ? 'field-problem' : ''}>
            {problem || 'functions that the model may call, as JSON; you give their results'}
          </small>
        </label>
        <div class="row">
          <button type="button" onClick={() => (setTools(''), set({}))}>
            Clear all
          </button>
          <button type="button" onClick={() => (state.keepAsDefault(settings), setKept(true))}>
            {isKept ? 'Kept for new chats' : 'Keep for new chats'}
          </button>
        </div>
      </div>
    </Modal>
  );
}
