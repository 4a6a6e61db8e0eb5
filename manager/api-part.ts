/** The API, with what settings say about it: opened in one way, whether it shares its process or not. */
import { type Api, type ApiOptions, openApi } from '../api/api.ts'
import type { Settings } from '../settings.ts'
import { VERSION } from '../version.ts'

export function openApiPart(
  settings: Settings,
  options: Omit<ApiOptions, 'host' | 'staleAfterMs' | 'clock' | 'version'>,
): Promise<Api> {
  return openApi({
    ...options,
    host: settings.SURGETANK_LISTEN,
    staleAfterMs: settings.SURGETANK_STALE_SECONDS * 1_000,
    clock: Date.now,
    version: VERSION,
  })
}
