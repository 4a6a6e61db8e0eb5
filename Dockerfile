# Builds with the compiler, then starts anew from the same base with what runs only.
FROM node:24-bookworm-slim AS build
WORKDIR /app
COPY package.json package-lock.json .npmrc ./
RUN npm ci --ignore-scripts
COPY . .
# The compiler copies no statements and no scripts. No repository is here to tell the commit:
# docker build --build-arg SURGETANK_COMMIT=$(.ci/commit) .
ARG SURGETANK_COMMIT=unknown
RUN npx tsc -b \
  && echo "$SURGETANK_COMMIT" > dist/commit.txt \
  && rm -rf dist/test dist/bench dist/.tsbuildinfo \
  && mkdir /out \
  && cp -r --parents dist package.json LICENSE $(find database space -name '*.sql' -o -name '*.lua') /out

FROM node:24-bookworm-slim
ENV NODE_ENV=production
WORKDIR /app
COPY package.json package-lock.json .npmrc ./
# The native packages come prebuilt for Debian: no compiler is needed and none is here, and no script of a package runs.
RUN npm ci --omit=dev --ignore-scripts && npm cache clean --force \
  && ln -s /app/dist/main.js /usr/local/bin/surgetank \
  && mkdir -m 700 /data && chown 10001:10001 /data
COPY --from=build /out ./
RUN chmod +x dist/main.js
USER 10001:10001
# Of the embedded parts, where there are any; everything else only reads.
VOLUME /data
ENV SURGETANK_DATA_DIR=/data
EXPOSE 1883 8080
HEALTHCHECK --interval=5s --timeout=3s --start-period=60s --retries=3 \
  CMD ["node", "-e", "fetch(`http://127.0.0.1:${process.env.SURGETANK_HTTP_PORT || 8080}/readyz`).then(answer => process.exit(answer.ok ? 0 : 1), () => process.exit(1))"]
ENTRYPOINT ["node", "/app/dist/main.js"]
