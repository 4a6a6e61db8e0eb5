/**
 * Which build this is: the version that package.json has, and the commit that the build wrote into `dist/commit.txt`
 * (`.ci/commit`; the Dockerfile). A commit that ends with `-dirty` had changes beside it that were not committed; `unknown`:
 * it was built where there is no git, and nobody said which.
 */
import { existsSync, readFileSync } from 'node:fs'

/** package.json is beside the sources, and above a build. */
const BESIDE = new URL('./package.json', import.meta.url)
const ABOVE = new URL('../package.json', import.meta.url)
const isBuilt = !existsSync(BESIDE)
const COMMIT_FILE = new URL(isBuilt ? './commit.txt' : './dist/commit.txt', import.meta.url)
const COMMIT = /^[0-9a-f]{7,40}(-dirty)?$/

const { version } = JSON.parse(readFileSync(isBuilt ? ABOVE : BESIDE, 'utf8')) as { version: string }

export const BUILD: { readonly version: string; readonly commit: string } = { version, commit: readCommit() }

/** As it is said wherever a version is said: `0.1.0 (b556fd9)`. */
export const VERSION = `${BUILD.version} (${BUILD.commit})`

function readCommit(): string {
  if (!existsSync(COMMIT_FILE)) return 'unknown'
  const text = readFileSync(COMMIT_FILE, 'utf8').trim()
  return COMMIT.test(text) ? text : 'unknown'
}
