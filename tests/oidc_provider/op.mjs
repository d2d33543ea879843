// An OpenID provider that is not ours, with the least that makes a Platform of it: two people, one Studio, a login page.
// node op.mjs FOLDER PORT ISSUER CONNECT_ORIGIN REGISTRATION_TOKEN; it says "ready" when it listens.
// The test itself asks for what happens at a real one: POST /test/rotate, POST /test/forget, POST /test/revoke,
// GET /test/agent-token.
import { createServer, request as requestPlain } from 'node:http';
import { request as requestSecure } from 'node:https';
import { createRequire } from 'node:module';
import { pathToFileURL } from 'node:url';

const [folder, port, issuer, connect, registrationToken] = process.argv.slice(2);
const load = (name) => import(pathToFileURL(createRequire(`${folder}/`).resolve(name)).href);
const { Provider } = await load('oidc-provider');
const { exportJWK, generateKeyPair, SignJWT } = await load('jose');

const people = { alice: 'sub-of-alice', bob: 'sub-of-bob' };
const session = { id: '23ce7967', name: 'A Studio', owner: 'alice', state: 'running', tool: 'files' };

const records = new Map();
class Memory {
  constructor(kind) { this.kind = kind; }
  async upsert(id, record) { records.set(`${this.kind}:${id}`, record); }
  async find(id) { return records.get(`${this.kind}:${id}`); }
  async findByUid(uid) { return this.#first((record) => record.uid === uid); }
  async findByUserCode(code) { return this.#first((record) => record.userCode === code); }
  async destroy(id) { records.delete(`${this.kind}:${id}`); }
  async consume(id) { records.get(`${this.kind}:${id}`).consumed = true; }
  async revokeByGrantId(grantId) {
    for (const [key, record] of records) if (record.grantId === grantId) records.delete(key);
  }
  #first(wanted) {
    for (const [key, record] of records) if (key.startsWith(`${this.kind}:`) && wanted(record)) return record;
    return undefined;
  }
}

// Names under localhost are this machine, whatever resolvers say; and the library's own way refuses to go there.
function toThisMachine(url, { method, headers, body, signal }) {
  const { protocol, host, hostname, port, pathname } = new URL(url);
  const secure = protocol === 'https:';
  const options = {
    host: '127.0.0.1', port: port || (secure ? 443 : 80), path: pathname, method, signal, servername: hostname,
    rejectUnauthorized: false, headers: { ...Object.fromEntries(headers), host },
  };
  return new Promise((resolve, reject) => {
    const sent = (secure ? requestSecure : requestPlain)(options, (answer) => {
      answer.resume();
      resolve(new Response(null, { status: answer.statusCode }));
    });
    sent.on('error', reject);
    sent.end(String(body));
  });
}

let signer;
let provider;
let generation = 0;
async function rotate() {
  const { privateKey } = await generateKeyPair('RS256', { extractable: true });
  signer = { key: privateKey, kid: `key-${(generation += 1)}` };
  provider = new Provider(issuer, {
    adapter: Memory,
    jwks: { keys: [{ ...(await exportJWK(privateKey)), kid: signer.kid, alg: 'RS256', use: 'sig' }] },
    cookies: { keys: ['of no worth'] },
    claims: { openid: ['sub'], profile: ['preferred_username'] },
    features: {
      devInteractions: { enabled: false },
      registration: { enabled: true, initialAccessToken: registrationToken },
      backchannelLogout: { enabled: true },
    },
    fetch: toThisMachine,
    issueRefreshToken: (_, client) => client.grantTypeAllowed('refresh_token'),
    rotateRefreshToken: true,
    interactions: { url: (_, interaction) => `/api/interaction/${interaction.uid}` },
    async findAccount(_, sub) {
      const name = Object.keys(people).find((person) => people[person] === sub);
      return name && { accountId: sub, claims: () => ({ sub, preferred_username: name }) };
    },
    async loadExistingGrant(ctx) {
      const grant = new provider.Grant({ accountId: ctx.oidc.session.accountId, clientId: ctx.oidc.client.clientId });
      grant.addOIDCScope('openid profile');
      await grant.save();
      return grant;
    },
  });
  provider.proxy = true;
  provider.on('server_error', (_, error) => console.error(error));
  provider.on('backchannel.error', (_, error) => console.error(error));
  provider.on('backchannel.success', () => console.log('told of a logout'));
}

async function body(request) {
  let text = '';
  for await (const chunk of request) text += chunk;
  return text;
}

function json(response, status, value) {
  response.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify(value));
}

function isClient(request) {
  const [, encoded] = /^Basic (.+)$/.exec(request.headers.authorization ?? '') ?? [];
  const [id, secret] = Buffer.from(encoded ?? '', 'base64').toString().split(':').map(decodeURIComponent);
  return records.get(`Client:${id}`)?.client_secret === secret;
}

async function contract(request, response, path) {
  if (!isClient(request)) return json(response, 401, { error: 'invalid_client' });
  if (path === '/access') {
    const wish = JSON.parse(await body(request));
    if (wish.session !== session.id) return json(response, 404, {});
    const allowed = wish.subject === people.alice;
    return json(response, 200, { allowed, reason: allowed ? null : 'It is private to alice.', session });
  }
  return path === `/sessions/${session.id}` ? json(response, 200, session) : json(response, 404, {});
}

async function interaction(request, response) {
  if (request.method === 'POST') {
    const form = new URLSearchParams(await body(request));
    const accountId = form.get('password') === form.get('username') ? people[form.get('username')] : undefined;
    if (accountId) return provider.interactionFinished(request, response, { login: { accountId } });
  }
  return response.writeHead(200, { 'content-type': 'text/html' }).end(
    '<!doctype html><title>Log in</title><form method="post"><label>User name <input name="username"></label>'
    + '<label>Password <input name="password" type="password"></label><button>Log in</button></form>',
  );
}

async function agentToken() {
  return new SignJWT({ jti: crypto.randomUUID() }).setProtectedHeader({ alg: 'RS256', kid: signer.kid })
    .setIssuer(issuer).setAudience('connect-agent').setSubject(session.id).setIssuedAt().setExpirationTime('1h')
    .sign(signer.key);
}

async function test(response, path) {
  if (path === '/rotate') await rotate();
  const lost = { '/forget': 'Client:', '/revoke': 'RefreshToken:' }[path];
  if (lost) for (const key of [...records.keys()]) if (key.startsWith(lost)) records.delete(key);
  return json(response, 200, path === '/agent-token' ? { token: await agentToken() } : {});
}

async function answer(request, response) {
  const { pathname } = new URL(request.url, issuer);
  if (pathname.startsWith('/test/')) return test(response, pathname.slice(5));
  if (pathname.startsWith('/api/connect/')) return contract(request, response, pathname.slice(12));
  if (pathname.startsWith('/api/interaction/')) return interaction(request, response);
  if (pathname.startsWith('/api/')) {
    request.originalUrl = request.url;
    request.url = request.url.slice(4);
    return provider.callback()(request, response);
  }
  return response.writeHead(302, { location: `${connect}/` }).end();
}

await rotate();
createServer((request, response) => answer(request, response).catch((error) => {
  console.error(error);
  response.writeHead(500).end();
})).listen(Number(port), '127.0.0.1', () => console.log('ready'));
