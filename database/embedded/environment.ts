/**
 * All of the engine's environment: nothing of its parent's reaches it. A statement under way holds one thread of libuv's
 * pool, and files need some, too: more than all lanes together. Times without a zone are UTC, as everywhere here.
 */
export const ENVIRONMENT = {
  UV_THREADPOOL_SIZE: '20',
  TZ: 'UTC',
  // Node ends with 13 when its OpenSSL cannot read the machine's configuration, which stands outside of the walls.
  OPENSSL_CONF: '/dev/null',
} as const
