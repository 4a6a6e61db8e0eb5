import { defineConfig } from 'vitest/config'

/** `npm test`: everything but the long crash rounds. Two workers: the tests start real processes of their own. */
export default defineConfig({
  test: {
    include: ['test/**/*.test.ts'],
    exclude: ['test/crash/rounds.test.ts', 'node_modules/**', 'dist/**'],
    globalSetup: 'test/servers/setup.ts',
    testTimeout: 30_000,
    hookTimeout: 30_000,
    maxWorkers: 2,
    reporters: ['default'],
  },
})
