// An OpenID provider as a peer (npm oidc-provider): signed access tokens by client_credentials, discovery, a JWK set.
// Prints `idp URL` when it listens. For tests, on loopback: POST /_test/rotate?alg=ES256 signs with a new key that is first in
// the set, and keeps the old ones there; POST /_test/drop-old keeps only the newest.
import http from 'node:http';
import { generateKeyPairSync, randomUUID } from 'node:crypto';
import Provider from 'oidc-provider';

const AUDIENCE = 'urn:svc:orders';
let issuer;
let alg = 'RS256';
let keys = [newKey(alg)];
let handle;

function newKey(alg) {
  const { privateKey } =
    alg === 'ES256' ? generateKeyPairSync('ec', { namedCurve: 'P-256' })
      : alg === 'EdDSA' ? generateKeyPairSync('ed25519')
        : generateKeyPairSync('rsa', { modulusLength: 2048 });
  return { ...privateKey.export({ format: 'jwk' }), kid: randomUUID(), alg, use: 'sig' };
}

function build() {
  const provider = new Provider(issuer, {
    jwks: { keys },
    clients: [{
      client_id: 'frontend', client_secret: 'frontend-secret', grant_types: ['client_credentials'],
      response_types: [], redirect_uris: [], id_token_signed_response_alg: keys.at(-1).alg,
    }],
    scopes: ['orders:read'],
    ttl: { ClientCredentials: 300 },
    features: {
      devInteractions: { enabled: false },
      clientCredentials: { enabled: true },
      resourceIndicators: {
        enabled: true,
        defaultResource: () => AUDIENCE,
        useGrantedResource: () => true,
        getResourceServerInfo: (_context, resource) => ({
          audience: resource, scope: 'orders:read', accessTokenFormat: 'jwt', jwt: { sign: { alg } },
        }),
      },
    },
  });
  handle = provider.callback();
}

const server = http.createServer((request, response) => {
  const url = new URL(request.url, issuer);
  if (request.method === 'POST' && url.pathname === '/_test/rotate') {
    alg = url.searchParams.get('alg');
    keys = [newKey(alg), ...keys];
    build();
    response.end();
  } else if (request.method === 'POST' && url.pathname === '/_test/drop-old') {
    keys = keys.slice(0, 1);
    build();
    response.end();
  } else handle(request, response);
});
server.listen(0, '127.0.0.1', () => {
  issuer = `http://127.0.0.1:${server.address().port}`;
  build();
  console.log(`idp ${issuer}`);
});
