/** Whether npm's cache has all that `npm ci` installs here, so that a test can install it again without a network. */
import { existsSync, readFileSync } from 'node:fs'
import { homedir } from 'node:os'
import { join } from 'node:path'

interface Locked {
  readonly integrity?: string
  readonly link?: true
  readonly dev?: true
  readonly os?: readonly string[]
  readonly cpu?: readonly string[]
  readonly libc?: readonly string[]
}

export const npmCache = process.env.npm_config_cache ?? join(homedir(), '.npm')

export const npmCacheHere = isHere()

function isHere(): boolean {
  const { packages } = JSON.parse(readFileSync('package-lock.json', 'utf8')) as { packages: Record<string, Locked> }
  const needed = Object.entries(packages).filter(([path, locked]) => path !== '' && isForHere(locked))
  return needed.every(([, { integrity }]) => integrity !== undefined && existsSync(contentOf(integrity)))
}

function isForHere({ link, dev, os, cpu, libc }: Locked): boolean {
  if (link || dev) return false
  return (
    (os?.includes(process.platform) ?? true) &&
    (cpu?.includes(process.arch) ?? true) &&
    (libc?.includes('glibc') ?? true)
  )
}

/** As npm's cache names it. */
function contentOf(integrity: string): string {
  const [algorithm = '', digest = ''] = integrity.split('-')
  const hex = Buffer.from(digest, 'base64').toString('hex')
  return join(npmCache, '_cacache/content-v2', algorithm, hex.slice(0, 2), hex.slice(2, 4), hex.slice(4))
}
