import { defineConfig } from 'vitest/config'

/** `npm test`: everything but the long crash rounds. Two workers: the tests start real processes of their own. */
export default defineConfig({
  test: {
    include: ['test/**/*.test.ts'],
    exclude: ['test/crash/rounds.test.ts', 'node_modules/**', 'dist/**'],
    globalSetup: 'test/servers/setup.ts',
    // For what hangs only: a machine may be several times slower than the one where a test was written.
    testTimeout: 300_000,
    hookTimeout: 300_000,
    expect: { poll: { timeout: 60_000, interval: 50 } },
    maxWorkers: 2,
    reporters: ['default'],
  },
})
