/**
 * Bugs planted into a copy of the build, to see that the rounds catch them: a test that cannot fail proves nothing. The
 * product itself has no switch for faults. A bug whose place is not found any more fails loudly.
 */
import { cpSync, mkdtempSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'

export interface PlantedBug {
  readonly title: string
  /** The file of the build, what stands there, and what shall stand there. */
  readonly file: string
  readonly from: RegExp
  readonly to: string
}

/** A copy of the build with the bug; returns its folder. The caller removes `root`. */
export function plant(bug: PlantedBug): { root: string; dist: string } {
  const root = mkdtempSync(join(tmpdir(), 'surgetank-bug-'))
  const dist = join(root, 'dist')
  cpSync('dist', dist, { recursive: true })
  // The build looks for these beside itself.
  for (const name of ['node_modules', 'package.json', 'database', 'space']) symlinkSync(resolve(name), join(root, name))
  const path = join(dist, bug.file)
  const source = readFileSync(path, 'utf8')
  const places = [...source.matchAll(new RegExp(bug.from, 'g'))].length
  if (places !== 1) throw new Error(`"${bug.title}": ${places} places match ${bug.from} in ${bug.file}, not one.`)
  writeFileSync(path, source.replace(bug.from, bug.to))
  return { root, dist }
}
