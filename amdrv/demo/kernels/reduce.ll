; partial[group] = sum of 1024 elements of x, as a tree in LDS; workgroups of 256
declare i32 @llvm.amdgcn.workitem.id.x()
declare i32 @llvm.amdgcn.workgroup.id.x()
declare void @llvm.amdgcn.s.barrier()

@tree = internal addrspace(3) global [256 x float] poison

define amdgpu_kernel void @reduce(ptr addrspace(1) %partial, ptr addrspace(1) %x, i32 %n) #0 {
entry:
  %item = call i32 @llvm.amdgcn.workitem.id.x()
  %group = call i32 @llvm.amdgcn.workgroup.id.x()
  %first = shl i32 %group, 10
  %start = or disjoint i32 %first, %item
  %mine = getelementptr float, ptr addrspace(3) @tree, i32 %item
  br label %gather

; every work-item adds up four elements, 256 apart, as far as there are any
gather:
  %turn = phi i32 [ 0, %entry ], [ %turn.next, %gathered ]
  %sum = phi float [ 0.0, %entry ], [ %sum.next, %gathered ]
  %offset = shl i32 %turn, 8
  %i = add i32 %start, %offset
  %inside = icmp ult i32 %i, %n
  br i1 %inside, label %fetch, label %gathered

fetch:
  %x.at = getelementptr float, ptr addrspace(1) %x, i32 %i
  %xi = load float, ptr addrspace(1) %x.at
  %added = fadd float %sum, %xi
  br label %gathered

gathered:
  %sum.next = phi float [ %sum, %gather ], [ %added, %fetch ]
  %turn.next = add i32 %turn, 1
  %more = icmp ult i32 %turn.next, 4
  br i1 %more, label %gather, label %planted

planted:
  store float %sum.next, ptr addrspace(3) %mine
  br label %level

; 128 work-items add the upper half to the lower one, then 64, ... then one
level:
  %half = phi i32 [ 128, %planted ], [ %half.next, %joined ]
  fence syncscope("workgroup") release
  call void @llvm.amdgcn.s.barrier()
  fence syncscope("workgroup") acquire
  %active = icmp ult i32 %item, %half
  br i1 %active, label %join, label %joined

join:
  %partner = add i32 %item, %half
  %other = getelementptr float, ptr addrspace(3) @tree, i32 %partner
  %low = load float, ptr addrspace(3) %mine
  %high = load float, ptr addrspace(3) %other
  %both = fadd float %low, %high
  store float %both, ptr addrspace(3) %mine
  br label %joined

joined:
  %half.next = lshr i32 %half, 1
  %again = icmp ne i32 %half.next, 0
  br i1 %again, label %level, label %top

top:
  %is.first = icmp eq i32 %item, 0
  br i1 %is.first, label %publish, label %end

publish:
  %total = load float, ptr addrspace(3) @tree
  %partial.at = getelementptr float, ptr addrspace(1) %partial, i32 %group
  store float %total, ptr addrspace(1) %partial.at
  br label %end

end:
  ret void
}

attributes #0 = { "amdgpu-flat-work-group-size"="256,256" "uniform-work-group-size"="true" }
