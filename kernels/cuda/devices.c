/* What this machine has, and in what words it cannot be used. */
#include "cuda.h"

enum { LEAST_MAJOR = 8 };

/* Codes after which the process can do nothing more with the device: the runtime answers every later call with the
 * same. */
static bool is_loss(int code)
{
    enum { ECC = 214, NVLINK = 220, KERNEL_FIRST = 700, KERNEL_LAST = 721, UNKNOWN = 999 };
    return (code >= KERNEL_FIRST && code <= KERNEL_LAST) || code == ECC || code == NVLINK || code == UNKNOWN;
}

int cuda_check(const struct backend *b, int code, const char *what, struct err *e)
{
    const char *text = b->api->error_text(code), *device = b->device.name;
    if (!code)
        return 0;
    if (code == CUDA_NO_MEMORY)
        return err_set(e, ERR_NOMEM, "%s: %s: out of memory", device, what);
    if (code == CUDA_BUSY)
        return err_set(e, ERR_DEVICE, "%s is busy or may not be used: another process may have it to itself", device);
    if (code == CUDA_NO_CODE)
        return err_set(e, ERR_DEVICE, "%s: this binary has no kernels for compute capability %d.%d", device,
                       b->device.major, b->device.minor);
    if (is_loss(code))
        return err_set(e, ERR_DEVICE, "%s: %s: the device is lost: %s", device, what, text);
    return err_set(e, ERR_DEVICE, "%s: %s: %s", device, what, text);
}

int cuda_comm_check(const struct backend *b, int code, const char *what, struct err *e)
{
    return code ? err_set(e, ERR_DEVICE, "%s: %s: another rank is lost, or the link to it: %s", b->device.name, what,
                          b->comm_api->error_text(code))
                : 0;
}

static int refuse_driver(const struct cuda_api *api, struct err *e)
{
    int32_t driver = 0, own = 0;
    int code = api->versions(&driver, &own);
    if (code || !driver)
        return err_set(e, ERR_NOTFOUND, "no NVIDIA driver is installed");
    return err_set(e, ERR_NOTFOUND, "the NVIDIA driver is too old: it is for CUDA %d.%d, this binary needs %d.%d",
                   driver / 1000, driver % 1000 / 10, own / 1000, own % 1000 / 10);
}

int cuda_devices(const struct cuda_api *api, int32_t *n, struct err *e)
{
    *n = 0;
    int code = api->device_count(n);
    if (code == CUDA_OLD_DRIVER)
        return refuse_driver(api, e);
    if (code == CUDA_NO_DEVICE || (!code && *n < 1))
        return err_set(e, ERR_NOTFOUND, "the NVIDIA driver shows no device");
    return code ? err_set(e, ERR_DEVICE, "looking for devices: %s", api->error_text(code)) : 0;
}

int cuda_device(const struct cuda_api *api, int32_t index, struct cuda_device *out, struct err *e)
{
    int code = api->device_info(index, out);
    if (code)
        return err_set(e, ERR_DEVICE, "asking what device %d is: %s", index, api->error_text(code));
    if (out->major < LEAST_MAJOR)
        return err_set(e, ERR_NOTFOUND, "%s has compute capability %d.%d; %d.0 is the least that cuda runs on",
                       out->name, out->major, out->minor, LEAST_MAJOR);
    if (out->prohibited)
        return err_set(e, ERR_NOTFOUND,
                       "%s is in a compute mode that prohibits its use (nvidia-smi -c DEFAULT allows it)", out->name);
    return 0;
}
