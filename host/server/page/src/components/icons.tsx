// Icons: lines on a grid of 20, in the text's colour. They say nothing to screen readers; the buttons around them do.

import type { ButtonHTMLAttributes, JSX } from 'preact';

const shapes = {
  plus: 'M10 4v12M4 10h12',
  menu: 'M3 6h14M3 10h14M3 14h14',
  close: 'M5 5l10 10M15 5L5 15',
  send: 'M10 16V4M5 9l5-5 5 5',
  stop: 'M6 6h8v8H6z',
  attach: 'M15.5 9.5l-5.8 5.8a3.6 3.6 0 0 1-5.1-5.1l6.2-6.2a2.4 2.4 0 0 1 3.4 3.4l-6.2 6.2a1.2 1.2 0 0 1-1.7-1.7l5.6-5.6',
  copy: 'M7.5 7.5h8v8h-8zM12.5 7.5v-3h-8v8h3',
  check: 'M4 10.5l4 4 8-9',
  edit: 'M12.5 4.5l3 3-8.5 8.5H4v-3zM10.5 6.5l3 3',
  again: 'M15.5 10a5.5 5.5 0 1 1-1.7-4M15.5 3v3.4h-3.4',
  onward: 'M4 5l6 5-6 5zM15 5v10',
  trash: 'M4 6h12M8 6V4h4v2M5.5 6l.7 10h7.6l.7-10M8.5 9v4M11.5 9v4',
  previous: 'M12 5l-5 5 5 5',
  next: 'M8 5l5 5-5 5',
  down: 'M10 4v12M5 11l5 5 5-5',
  sliders: 'M3 6h7M14 6h3M3 14h3M10 14h7M12 4v4M8 12v4',
  more: 'M5 10h.01M10 10h.01M15 10h.01',
  sun: 'M10 6.5a3.5 3.5 0 1 0 0 7 3.5 3.5 0 0 0 0-7zM10 2v1.5M10 16.5V18M2 10h1.5M16.5 10H18M4.3 4.3l1.1 1.1M14.6 14.6l1.1 1.1M15.7 4.3l-1.1 1.1M5.4 14.6l-1.1 1.1',
  moon: 'M15.8 12.2A6.5 6.5 0 0 1 7.8 4.2a6.5 6.5 0 1 0 8 8z',
  system: 'M3 4.5h14v9H3zM7 16.5h6M10 13.5v3',
  file: 'M5 3h6l4 4v10H5zM11 3v4h4',
  tool: 'M13.5 3.5a4 4 0 0 0-4.6 5.6l-5.2 5.2a1.4 1.4 0 0 0 2 2l5.2-5.2a4 4 0 0 0 5.6-4.6l-2.4 2.4-2-.6-.6-2z',
} as const;

export type IconName = keyof typeof shapes;

export function Icon({ name }: { name: IconName }): JSX.Element {
  return (
    <svg class={`icon icon-${name}`} viewBox="0 0 20 20" width="20" height="20" aria-hidden="true" focusable="false">
      <path d={shapes[name]} />
    </svg>
  );
}

/** A button that is an icon, with its name for all who don't see it. */
export function IconButton({
  icon,
  label,
  ...more
}: { icon: IconName; label: string } & ButtonHTMLAttributes): JSX.Element {
  return (
    <button type="button" aria-label={label} title={label} {...more} class={`icon-button ${more.class ?? ''}`}>
      <Icon name={icon} />
    </button>
  );
}
