/* CUDA's and NVML's symbols, computing on the host: shows that names, argument types and order fit. It is no GPU. */
#include <stdlib.h>
#include <string.h>
#include <stdint.h>
#include <stddef.h>
typedef void *P;
static size_t held;
int cuInit(unsigned f) { return INIT; }
int cuDeviceGetCount(int *n) { *n = COUNT; return INIT ? 3 : 0; }
int cuDeviceGet(int *d, int i) { *d = i; return 0; }
int cuDeviceGetName(char *s, int n, int d) { strncpy(s, d ? "NVIDIA H200" : "NVIDIA RTX A6000", n); return 0; }
int cuDeviceGetAttribute(int *v, int a, int d) { *v = a == 75 ? 8 + d : (a == 76 ? (d ? 0 : 6) : -1); return 0; }
int cuDeviceGetPCIBusId(char *s, int n, int d) { strncpy(s, d ? "0000:65:00.0" : "0000:17:00.0", n); return 0; }
int cuDriverGetVersion(int *v) { *v = 13010; return 0; }
int cuDevicePrimaryCtxRetain(P *c, int d) { *c = (P)7; return 0; }
int cuDevicePrimaryCtxRelease_v2(int d) { return 0; }
int cuCtxSetCurrent(P c) { return c == (P)7 ? 0 : 201; }
int cuMemGetInfo_v2(size_t *f, size_t *t) { *f = ((size_t)5 << 33) - held; *t = (size_t)6 << 33; return 0; }
int cuMemAlloc_v2(uint64_t *a, size_t n) {
  if (n > 1u << 20) return 2;
  size_t *p = malloc(n + 16);
  held += *p = n;
  *a = (uint64_t)(p + 2);
  return 0;
}
int cuMemFree_v2(uint64_t a) { size_t *p = (size_t *)a - 2; held -= *p; free(p); return 0; }
int cuMemcpyHtoDAsync_v2(uint64_t d, void *s, size_t n, P q) { memcpy((void *)d, s, n); return q == (P)9 ? 0 : 1; }
int cuMemcpyDtoHAsync_v2(void *d, uint64_t s, size_t n, P q) { memcpy(d, (void *)s, n); return q == (P)9 ? 0 : 1; }
int cuStreamCreate(P *s, unsigned f) { *s = (P)9; return f == 1 ? 0 : 1; }
int cuStreamSynchronize(P s) { return s == (P)9 ? 0 : 1; }
int cuStreamDestroy_v2(P s) { return 0; }
int cuStreamBeginCapture_v2(P s, int m) { return m == 1 ? 0 : 1; }
int cuStreamEndCapture(P s, P *g) { *g = (P)11; return 0; }
int cuGraphInstantiateWithFlags(P *e, P g, uint64_t f) { *e = (P)13; return g == (P)11 && f == 0 ? 0 : 1; }
int cuGraphLaunch(P e, P s) { return e == (P)13 && s == (P)9 ? 0 : 1; }
int cuGraphExecDestroy(P e) { return 0; }
int cuGraphDestroy(P g) { return 0; }
int cuEventCreate(P *e, unsigned f) { *e = malloc(1); return 0; }
int cuEventRecord(P e, P s) { return s == (P)9 ? 0 : 1; }
int cuEventSynchronize(P e) { return 0; }
int cuEventElapsedTime(float *ms, P a, P b) { *ms = 1.5f; return a != b ? 0 : 1; }
int cuEventDestroy_v2(P e) { free(e); return 0; }
int cuGetErrorName(int c, const char **s) { *s = c == 2 ? "CUDA_ERROR_OUT_OF_MEMORY" : 0; return 0; }
int nvmlInit_v2(void) { return INIT; }
int nvmlShutdown(void) { return 0; }
int nvmlDeviceGetHandleByPciBusId_v2(const char *s, P *h) { *h = (P)21; return strcmp(s, "0000:17:00.0"); }
int nvmlDeviceGetCurrentClocksEventReasons(P h, unsigned long long *r) { *r = 0x44; return h == (P)21 ? 0 : 1; }
int nvmlDeviceGetClockInfo(P h, unsigned k, unsigned *v) { *v = k == 1 ? 1980 : (k == 2 ? 3201 : 0); return h != (P)21; }
int nvmlDeviceGetTemperature(P h, unsigned k, unsigned *v) { *v = 41; return k; }
