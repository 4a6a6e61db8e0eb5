/** The version, as package.json has it: beside this file, or above it in a build. */
import { existsSync, readFileSync } from 'node:fs'

const BESIDE = new URL('./package.json', import.meta.url)
const ABOVE = new URL('../package.json', import.meta.url)

const { version } = JSON.parse(readFileSync(existsSync(BESIDE) ? BESIDE : ABOVE, 'utf8')) as { version: string }

export const VERSION = version
