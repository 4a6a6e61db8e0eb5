/** `npm run docs`: writes docs/SETTINGS.md from the declarations in settings.ts. */
import { writeFileSync } from 'node:fs'
import { settingsPage } from '../settings.ts'

writeFileSync('docs/SETTINGS.md', settingsPage())
