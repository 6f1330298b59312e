/* A fiber is a stack and the registers that a call preserves. The switch is our own on x86-64 and aarch64 (a kernel of
 * 256 threads switches millions of times) and ucontext elsewhere. AddressSanitizer is told of every change of stack. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "simt.h"

#if defined(__SANITIZE_ADDRESS__)
#define SIMT_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define SIMT_ASAN 1
#endif
#endif

#ifdef SIMT_ASAN
#include <sanitizer/common_interface_defs.h>
enum { STACK_BYTES = 256 * 1024 }; /* redzones */
#else
enum { STACK_BYTES = 64 * 1024 };
#endif
enum { GUARD_BYTES = 4096 };

static __thread void (*starting)(void);

#if defined(__x86_64__)

void simt_switch_registers(void **save_sp, void *load_sp);
__asm__(".text\n"
        ".globl simt_switch_registers\n"
        ".type simt_switch_registers, @function\n"
        "simt_switch_registers:\n"
        "    pushq %rbp\n    pushq %rbx\n    pushq %r12\n    pushq %r13\n    pushq %r14\n    pushq %r15\n"
        "    movq %rsp, (%rdi)\n"
        "    movq %rsi, %rsp\n"
        "    popq %r15\n    popq %r14\n    popq %r13\n    popq %r12\n    popq %rbx\n    popq %rbp\n"
        "    ret\n"
        ".size simt_switch_registers, .-simt_switch_registers\n");

static void *first_frame(char *top, void (*entry)(void))
{
    void **sp = (void **)top;
    *--sp = NULL; /* where entry would return to, and the alignment of a call */
    *--sp = (void *)entry;
    for (int i = 0; i < 6; i++)
        *--sp = NULL;
    return sp;
}

#elif defined(__aarch64__)

void simt_switch_registers(void **save_sp, void *load_sp);
__asm__(".text\n"
        ".globl simt_switch_registers\n"
        ".type simt_switch_registers, %function\n"
        "simt_switch_registers:\n"
        "    sub sp, sp, #160\n"
        "    stp x19, x20, [sp]\n    stp x21, x22, [sp, #16]\n    stp x23, x24, [sp, #32]\n"
        "    stp x25, x26, [sp, #48]\n    stp x27, x28, [sp, #64]\n    stp x29, x30, [sp, #80]\n"
        "    stp d8, d9, [sp, #96]\n    stp d10, d11, [sp, #112]\n    stp d12, d13, [sp, #128]\n"
        "    stp d14, d15, [sp, #144]\n"
        "    mov x9, sp\n    str x9, [x0]\n    mov sp, x1\n"
        "    ldp x19, x20, [sp]\n    ldp x21, x22, [sp, #16]\n    ldp x23, x24, [sp, #32]\n"
        "    ldp x25, x26, [sp, #48]\n    ldp x27, x28, [sp, #64]\n    ldp x29, x30, [sp, #80]\n"
        "    ldp d8, d9, [sp, #96]\n    ldp d10, d11, [sp, #112]\n    ldp d12, d13, [sp, #128]\n"
        "    ldp d14, d15, [sp, #144]\n"
        "    add sp, sp, #160\n"
        "    ret\n"
        ".size simt_switch_registers, .-simt_switch_registers\n");

static void *first_frame(char *top, void (*entry)(void))
{
    void **sp = (void **)(top - 160);
    for (int i = 0; i < 20; i++)
        sp[i] = NULL;
    sp[11] = (void *)entry; /* x30 */
    return sp;
}

#else
#define SIMT_UCONTEXT 1
#include <ucontext.h>
#endif

void simt_fiber_create(struct simt_fiber *f)
{
    char *mem = mmap(NULL, GUARD_BYTES + STACK_BYTES, PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (mem == MAP_FAILED || mprotect(mem, GUARD_BYTES, PROT_NONE)) {
        perror("simt: stack of a fiber");
        abort();
    }
    f->stack = mem + GUARD_BYTES;
    f->stack_bytes = STACK_BYTES;
}

void simt_fiber_free(struct simt_fiber *f)
{
    if (f->stack)
        munmap(f->stack - GUARD_BYTES, GUARD_BYTES + STACK_BYTES);
#ifdef SIMT_UCONTEXT
    free(f->sp);
#endif
}

/* Every fiber begins here, so that the sanitizer hears of it before the body runs. */
static void enter(void)
{
#ifdef SIMT_ASAN
    __sanitizer_finish_switch_fiber(NULL, (const void **)&simt_self->block->host.stack,
                                    &simt_self->block->host.stack_bytes);
#endif
    starting();
    abort(); /* entry does not return */
}

void simt_fiber_start(struct simt_fiber *f, void (*entry)(void))
{
    starting = entry;
#ifdef SIMT_UCONTEXT
    ucontext_t *uc = f->sp ? f->sp : calloc(1, sizeof *uc);
    if (!uc || getcontext(uc))
        abort();
    uc->uc_stack.ss_sp = f->stack;
    uc->uc_stack.ss_size = f->stack_bytes;
    makecontext(uc, enter, 0);
    f->sp = uc;
#else
    f->sp = first_frame(f->stack + f->stack_bytes, enter);
#endif
    f->shadow = NULL;
}

void simt_fiber_switch(struct simt_fiber *from, struct simt_fiber *to, bool from_ends)
{
    (void)from_ends; /* its stack may be forgotten: only the sanitizer cares */
#ifdef SIMT_ASAN
    __sanitizer_start_switch_fiber(from_ends ? NULL : &from->shadow, to->stack, to->stack_bytes);
#endif
#ifdef SIMT_UCONTEXT
    if (!from->sp && !(from->sp = calloc(1, sizeof(ucontext_t))))
        abort();
    swapcontext(from->sp, to->sp);
#else
    simt_switch_registers(&from->sp, to->sp);
#endif
#ifdef SIMT_ASAN
    __sanitizer_finish_switch_fiber(from->shadow, NULL, NULL);
#endif
}
