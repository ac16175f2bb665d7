// Builds the page into dist/, which is committed: cargo compiles it in, without node.
//
// dist/sources.sha256 says of which sources it was built; a test of the crate compares it with those that are there.
import { createHash } from 'node:crypto';
import { cp, mkdir, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { dirname, join, relative, sep } from 'node:path';
import { fileURLToPath } from 'node:url';
import * as esbuild from 'esbuild';

const root = dirname(fileURLToPath(import.meta.url));
const argument = (name) => process.argv.find((value) => value.startsWith(`${name}=`))?.slice(name.length + 1);
const out = argument('--out') ?? join(root, 'dist');

/** What decides how the built page comes out, beside src/. */
const BESIDE = ['build.mjs', 'package-lock.json', 'package.json', 'tsconfig.json'];

/** Every file under a folder. */
async function files(folder) {
  const entries = await readdir(folder, { recursive: true, withFileTypes: true });
  return entries.filter((entry) => entry.isFile()).map((entry) => join(entry.parentPath, entry.name));
}

/** The hash of the sources: of each, in the order of their paths' bytes, the path, the length and the content. */
async function hashOfSources() {
  const paths = [...(await files(join(root, 'src'))).map((file) => relative(root, file).split(sep).join('/')), ...BESIDE];
  const hash = createHash('sha256');
  for (const path of paths.sort()) {
    const content = await readFile(join(root, path));
    hash.update(`${path}\n${content.length}\n`).update(content);
  }
  return hash.digest('hex');
}

/** The licences of the packages of which the bundle has code. */
async function licences(inputs) {
  const names = new Set();
  for (const input of Object.keys(inputs)) {
    const name = /node_modules\/((?:@[^/]+\/)?[^/]+)\//.exec(input)?.[1];
    if (name) names.add(name);
  }
  let text = "The page of HERALD's server contains these packages:\n";
  for (const name of [...names].sort()) {
    const folder = join(root, 'node_modules', name);
    const about = JSON.parse(await readFile(join(folder, 'package.json'), 'utf8'));
    const file = (await readdir(folder)).filter((entry) => /^licen[cs]e/i.test(entry)).sort()[0];
    if (!file) throw new Error(`${name} has no licence file, where one was expected in ${folder}`);
    const licence = (await readFile(join(folder, file), 'utf8')).replaceAll('\r\n', '\n').trim();
    text += `\n${'='.repeat(80)}\n${name} ${about.version} (${about.license})\n\n${licence}\n`;
  }
  return text;
}

const options = {
  entryPoints: [
    { in: join(root, 'src/main.tsx'), out: 'app' },
    { in: join(root, 'src/theme.ts'), out: 'theme' },
    { in: join(root, 'src/styles/main.css'), out: 'app' },
  ],
  outdir: out,
  bundle: true,
  minify: true,
  format: 'iife',
  target: ['es2022', 'chrome123', 'firefox125', 'safari17.5'],
  jsx: 'automatic',
  jsxImportSource: 'preact',
  legalComments: 'none',
  charset: 'utf8',
  metafile: true,
  logLevel: 'warning',
  absWorkingDir: root,
};

async function copy() {
  for (const name of ['index.html', 'icon.svg']) await cp(join(root, 'src', name), join(out, name));
}

if (process.argv.includes('--watch')) {
  await mkdir(out, { recursive: true });
  await copy();
  await (await esbuild.context(options)).watch();
} else {
  await rm(out, { recursive: true, force: true });
  await mkdir(out, { recursive: true });
  const { metafile } = await esbuild.build(options);
  await copy();
  await writeFile(join(out, 'licences.txt'), await licences(metafile.inputs));
  await writeFile(join(out, 'sources.sha256'), `${await hashOfSources()}\n`);
  for (const [file, { bytes }] of Object.entries(metafile.outputs)) {
    console.log(`${relative(out, join(root, file))}: ${(bytes / 1000).toFixed(1)} kB`);
  }
}
