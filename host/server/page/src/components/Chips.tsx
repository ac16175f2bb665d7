import type { Attachment } from '../types';
import { Icon, IconButton } from './icons';

function size(text: string): string {
  const bytes = new Blob([text]).size;
  return bytes < 1024 ? `${bytes} B` : `${(bytes / 1024).toFixed(0)} KiB`;
}

/** The files that go with a message. */
export function Chips({ files, remove }: { files: Attachment[]; remove: (index: number) => void }) {
  if (files.length === 0) return null;
  return (
    <ul class="chips" aria-label="Attached files">
      {files.map((file, index) => (
        <li key={index}>
          <Icon name="file" />
          <span class="name">{file.name}</span>
          <span class="size">{size(file.text)}</span>
          <IconButton icon="close" label={`Remove ${file.name}`} onClick={() => remove(index)} />
        </li>
      ))}
    </ul>
  );
}
